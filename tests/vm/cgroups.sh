#!/bin/sh
# Whether what a job may have holds in a container too, as an ordinary user, with each runtime.
failed=0
expect() { # WHAT WANTED FOUND
    # shellcheck disable=SC2254 # a pattern
    case $3 in
    $2) echo "ok: $1" ;;
    *) echo "FAILED: $1: expected '$2', found '$3'" && failed=1 ;;
    esac
}
# Not the shell's own of that name.
setpriv=/usr/bin/setpriv
alice() { $setpriv --reuid 1000 --regid 1000 --clear-groups env HOME=/home/alice USER=alice "$@"; }
controllers='+memory +pids +cpuset'
job=/sys/fs/cgroup/job/task
echo "$controllers" >/sys/fs/cgroup/cgroup.subtree_control
mkdir -p $job
echo "$controllers" >/sys/fs/cgroup/job/cgroup.subtree_control
echo 60M >$job/memory.max
echo 40 >$job/pids.max
echo 0 >$job/cpuset.cpus
in_job() { sh -c 'echo $$ >"$0/cgroup.procs" && echo $$ >/tmp/engine && ulimit ${limit:--n 1024} && exec "$@"' $job "$@"; }
run() { in_job $setpriv --reuid 1000 --regid 1000 --clear-groups env HOME=/home/alice sarus run --pid=$pid load/library/box "$@"; }
processes() { find $job -name cgroup.procs -exec cat {} + 2>/dev/null; }
soon() { # CONDITION
    tries=0
    until eval "$1" || [ $tries -ge 100 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
}
left() { processes && find $job -name 'container-*'; }

for runtime in $(command -v runc) $(command -v crun); do
    sed -i "s|\"runcPath\": \"[^\"]*\"|\"runcPath\": \"$runtime\"|" /opt/sarus/etc/sarus.json
    alice sarus load /opt/images/box.tar box >/dev/null || failed=1
    for pid in private host; do
        what="${runtime##*/} --pid=$pid"
        expect "$what: cgroup" '0::/job/task*' "$(run cat /proc/self/cgroup)"
        expect "$what: processors" '*	0' "$(run grep Cpus_allowed_list /proc/self/status)"
        run dd if=/dev/zero of=/dev/null bs=160M count=1 2>/dev/null
        expect "$what: memory" 137 $?
        # shellcheck disable=SC2016 # the shell inside expands it
        script='for i in $(seq 60); do sleep 2 & done; wait'
        expect "$what: processes" "*can't fork*" "$(run sh -c "$script" 2>&1)"
        # Hard ones: root raises them for its own processes.
        for limit in 'v 2000000' 'f 0' 'n 16' 't 100' 's 4096'; do
            export limit="-$limit"
            found=$(run sh -c "ulimit -H ${limit% *}; ulimit -S ${limit% *}" | tr '\n' ' ')
            expect "$what: ulimit $limit" "${limit#* } ${limit#* } " "$found"
            limit=
        done
        # runc alone has more than that.
        export limit='-v 500000'
        case $runtime in *runc) expected='*needs * MiB of memory*' ;; *) expected='500000 ' ;; esac
        expect "$what: little memory" "$expected" "$(run sh -c 'ulimit -H -v' 2>&1 | tr '\n' ' ')"
        limit=
        run sleep 1000 &
        # shellcheck disable=SC2016 # as above
        soon 'processes | while read -r one; do cat "/proc/$one/comm"; done 2>/dev/null | grep -qx sleep'
        expect "$what: type of the job's cgroup" domain "$(cat $job/cgroup.type)"
        kill -9 "$(cat /tmp/engine)"
        wait
        # shellcheck disable=SC2016 # as above
        soon '[ -z "$(left)" ]'
        expect "$what: what is left" '' "$(left)"
    done
done
[ $failed = 0 ] && echo 'all passed'
