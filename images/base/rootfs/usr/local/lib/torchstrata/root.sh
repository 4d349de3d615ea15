# Root in a container of somebody's, as `docker exec -u 0` makes one, in login shells and interactive ones: the system's programs
# and root's home. What /opt/venv and the user's home hold is the user's. Where the first process of this container is root's, what an
# init of root's runs (`docker run --init`) too, and this shell comes from it (builds, --entrypoint bash), everything stays.
# The kernel says whose they are: status, since a process may hide its owner by who owns its directory in /proc.
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
