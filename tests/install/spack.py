"""Carries out Spack's recipe without Spack: spack.py RECIPE SOURCE PREFIX VARIANT... -- MAKE...

The words of the recipe's language stand for what they mean to this one recipe; make, and the script
that it runs, are real. Prints what the recipe declares.
"""

import importlib.util
import os
import subprocess
import sys
import types

recipe, source, prefix, *rest = sys.argv[1:]
variants, make_command = rest[: rest.index("--")], rest[rest.index("--") + 1 :]


class Path(str):
    def join(self, name):
        return Path(os.path.join(self, name))

    __getattr__ = join


class Spec:
    def satisfies(self, text):
        return text in variants

    def __getitem__(self, name):
        return types.SimpleNamespace(prefix=Path("/usr"))


def declares(kind):
    return lambda *words, **more: print(kind, *words, *(more.get("type", "").split()))


def after(phase):
    def mark(function):
        function.after = phase
        return function

    return mark


def execute(path):
    def run(*words, extra_env=None):
        subprocess.run([path, *words], check=True, env={**os.environ, **(extra_env or {})})

    return run


class MakefilePackage:
    spec = Spec()
    prefix = Path(prefix)


language = types.ModuleType("spack.package")
language.__dict__.update(
    MakefilePackage=MakefilePackage,
    license=declares("license"),
    version=declares("version"),
    variant=declares("variant"),
    depends_on=declares("depends_on"),
    run_after=after,
    Executable=execute,
    make=lambda *words: subprocess.run([*make_command, *words], check=True, cwd=source),
)
sys.modules["spack"] = types.ModuleType("spack")
sys.modules["spack.package"] = language
specification = importlib.util.spec_from_file_location("package", recipe)
module = importlib.util.module_from_spec(specification)
sys.dont_write_bytecode = True
specification.loader.exec_module(module)

package = module.Sarus()
environment = types.SimpleNamespace(set=lambda name, value: print("set", name, value))
package.setup_build_environment(environment)
package.build(package.spec, package.prefix)
package.install(package.spec, package.prefix)
for step in vars(module.Sarus).values():
    if getattr(step, "after", None) == "install":
        step(package)
