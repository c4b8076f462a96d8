#!/usr/bin/env bash
# Makes an RPM package: package-rpm.sh BINARY VERSION DIRECTORY
set -euo pipefail
umask 022

binary=$(realpath "$1")
version=$2
mkdir -p "$3"
dist=$(realpath "$3")
work=$(mktemp -d "$dist/.rpm.XXXXXX")
trap 'rm -rf "$work"' EXIT
scripts=$(realpath "$(dirname "$0")")

cat >"$work/sarus.spec" <<END
Name: sarus
Version: $version
Release: 1
Summary: OCI container engine for HPC systems
License: BSD-3-Clause
Requires: (runc or crun)
# Keeps the program as built: it is static and stripped.
%global __os_install_post %{nil}
%global debug_package %{nil}
%global _build_id_links none
AutoReqProv: no

%description
Runs images of containers on the nodes of an HPC system, as the user who calls
it, with the MPI and the devices of the host. One static setuid program, and
an OCI runtime.

%install
"$scripts/stage-package.sh" "$binary" %{buildroot}

%post
/opt/sarus/configure_installation.sh --keep >/dev/null

%postun
# Skipped in an upgrade. sarus.json of the site and images of users stay.
if [ "\$1" = 0 ]; then
    rm -f /opt/sarus/etc/passwd /opt/sarus/etc/group
    rmdir /opt/sarus/etc /opt/sarus 2>/dev/null || true
fi

%files
%defattr(-,root,root)
%dir /opt/sarus
%dir /opt/sarus/etc
%dir /opt/sarus/etc/container
%config(noreplace) /opt/sarus/etc/container/nsswitch.conf
/opt/sarus/etc/sarus.schema.json
/opt/sarus/etc/templates
/opt/sarus/bin
/opt/sarus/var
/opt/sarus/configure_installation.sh
$([ -z "${OPENSSH-}" ] || echo /opt/sarus/openssh)
/usr/bin/sarus
/usr/share/doc/sarus
/usr/share/man/man*/*
/usr/share/bash-completion/completions/*
/usr/share/zsh/site-functions/*
/usr/share/fish/vendor_completions.d/*
END
rpmbuild --quiet -bb --define "_topdir $work" --define "_rpmdir $work/rpms" \
    --define "_buildhost localhost" --define "use_source_date_epoch_as_buildtime 1" \
    --define "clamp_mtime_to_source_date_epoch 1" "$work/sarus.spec"
find "$work/rpms" -name '*.rpm' -exec mv -t "$dist" {} +
echo "$dist/sarus-$version-1.$(uname -m).rpm"
