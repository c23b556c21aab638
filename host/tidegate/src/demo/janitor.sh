# Cleans up after a program that keeps servers in a folder, however that program ends: it holds the other end of our
# standard input, which the kernel closes even when the program is killed.
#   $1  the folder; every $1/*/ may be a PostgreSQL data directory
#   $2  remove | keep: what becomes of the folder when its servers are stopped
trap '' INT TERM HUP QUIT
cat >/dev/null

# Whether the process serves this data directory. A stale file may name a process that is none of ours, and one that
# has ended but that nobody has waited for yet has no working directory.
serves() { [ -n "$1" ] && [ "$(readlink "/proc/$1/cwd" 2>/dev/null)" = "$2" ]; }

# All are told first, so that they end side by side.
for file in "$1"/*/postmaster.pid; do
    [ -f "$file" ] || continue
    pid=$(sed -n 1p "$file")
    serves "$pid" "${file%/postmaster.pid}" || continue
    # Paused processes must run to be able to end.
    kill -CONT "$pid" $(cat "/proc/$pid/task/$pid/children" 2>/dev/null) 2>/dev/null
    kill -QUIT "$pid" 2>/dev/null
done
for file in "$1"/*/postmaster.pid; do
    [ -f "$file" ] || continue
    pid=$(sed -n 1p "$file")
    tries=0
    while serves "$pid" "${file%/postmaster.pid}" && [ "$tries" -lt 100 ]; do
        tries=$((tries + 1))
        sleep 0.05
    done
    serves "$pid" "${file%/postmaster.pid}" && kill -KILL "$pid" 2>/dev/null
done

# What a killed server leaves in the system: a small System V segment, named in the file's seventh line.
for file in "$1"/*/postmaster.pid; do
    [ -f "$file" ] || continue
    set -- "$1" "$2" $(sed -n 7p "$file")
    if [ -n "$4" ] && grep -q "^ *$3 *$4 " /proc/sysvipc/shm 2>/dev/null; then ipcrm -m "$4" 2>/dev/null; fi
done

# A process of a killed server may write its last file meanwhile.
tries=0
while [ "$2" = remove ] && ! rm -rf -- "$1" 2>/dev/null && [ "$tries" -lt 100 ]; do
    tries=$((tries + 1))
    sleep 0.05
done
exit 0
