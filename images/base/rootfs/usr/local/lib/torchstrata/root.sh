# Root in a user's container, as by `docker exec -u 0`, in login shells and interactive ones: root gets the system's programs and its own
# home, since what /opt/venv and the user's home hold is the user's. Everything stays where the first process of this container is root's,
# with what it runs as an init (`docker run --init`), and this shell comes from it (builds, --entrypoint bash).
# The kernel says in status whose a process is; its directory in /proc may be root's all the same (PR_SET_DUMPABLE of prctl(2)).
read -r child _ 2>/dev/null </proc/1/task/1/children || :
user=$(/usr/bin/sed -n 's/^Uid:[^0-9]*\([1-9][0-9]*\).*/\1/p' /proc/1/status "/proc/${child:-1}/status" 2>/dev/null)
user=${user%%[!0-9]*}
if [ -n "$user" ] || ! [ /proc/1/ns/mnt -ef /proc/self/ns/mnt ] || { [ "$PPID" = 0 ] && [ $$ != 1 ]; }; then
    case $-:${PATH%%:*} in
        *:/usr/local/sbin) ;;
        *i*:*) echo "torchstrata: root has the system's programs alone; Python and torch are the user's: docker exec -it --user ${user:-UID}:0 CONTAINER bash" >&2 ;;
    esac
    unset VIRTUAL_ENV LD_LIBRARY_PATH LD_PRELOAD PYTHONPATH PYTHONHOME PYTHONSTARTUP PIP_CONSTRAINT UV_CONSTRAINT APT_CONFIG SSL_CERT_FILE REQUESTS_CA_BUNDLE CURL_CA_BUNDLE PIP_CERT GIT_SSL_CAINFO NODE_EXTRA_CA_CERTS ENV BASH_ENV CDPATH
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root USER=root LOGNAME=root PYTHONSAFEPATH=1
fi
unset child user
