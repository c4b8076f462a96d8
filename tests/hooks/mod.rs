//! OCI hooks: those that come along, and those of others.

mod attacks;
mod configured;
mod ldcache;
mod mpi;
mod podman;
mod slurm;
mod timestamp;
