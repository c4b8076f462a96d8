"""Spack's recipe for Sarus; docs/install.md explains its use."""

import os

from spack.package import *


class Sarus(MakefilePackage):
    """OCI container engine for HPC systems: one static setuid program."""

    license("BSD-3-Clause")

    # From a checkout: spack dev-build sarus@main
    version("main")

    variant("ssh", default=True, description="Build the OpenSSH of containers")
    variant(
        "configure_installation",
        default=True,
        description="Run configure_installation.sh, which needs root",
    )

    depends_on("c", type="build")
    # Needs a rust with the standard library of the musl target, which Spack's own lacks.
    depends_on("rust@1.90:", type="build")
    depends_on("gmake", type="build")
    depends_on("musl", type="build")
    depends_on("runc", type="run")

    def setup_build_environment(self, env):
        # The wrapper of musl compiles the C libraries that are linked in.
        env.set("MUSL_CC", self.spec["musl"].prefix.bin.join("musl-gcc"))

    def build(self, spec, prefix):
        make("all")

    def install(self, spec, prefix):
        enable_ssh = "1" if spec.satisfies("+ssh") else "0"
        make("install", f"PREFIX={prefix}", f"ENABLE_SSH={enable_ssh}")
        # Removes the generic file; configure_installation.sh, or the site, writes one for this machine.
        os.remove(prefix.etc.join("sarus.json"))

    @run_after("install")
    def configure(self):
        if self.spec.satisfies("+configure_installation"):
            runc = self.spec["runc"].prefix
            script = Executable(self.prefix.join("configure_installation.sh"))
            script(extra_env={"PATH": f"{runc.sbin}:{runc.bin}:{os.environ['PATH']}"})
