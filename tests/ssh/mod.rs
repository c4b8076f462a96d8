//! SSH between containers: `--ssh`, `sarus ssh-keygen` and `ssh_hook`.

mod attacks;
mod containers;
mod keys;
mod mpi;
