# Root in a container of somebody's, as `docker exec -u 0` makes one, in login shells and interactive ones: the system's programs
# and root's home. What /opt/venv and the user's home hold is the user's. Where the first process is root's and this shell comes
# from it (builds, --entrypoint bash), everything stays.
if [ "$(/usr/bin/stat -c %u /proc/1)" != 0 ] || { [ "$PPID" = 0 ] && [ $$ != 1 ]; }; then
    case $-:$PATH in
        *:/usr/local/sbin:*) ;;
        *i*:*) echo "torchstrata: root has the system's programs alone; Python and torch are the user's: docker exec -it --user $(/usr/bin/stat -c %u:0 /proc/1) CONTAINER bash" >&2 ;;
    esac
    unset VIRTUAL_ENV LD_LIBRARY_PATH LD_PRELOAD PYTHONPATH PYTHONHOME PYTHONSTARTUP PIP_CONSTRAINT UV_CONSTRAINT APT_CONFIG SSL_CERT_FILE REQUESTS_CA_BUNDLE CURL_CA_BUNDLE PIP_CERT GIT_SSL_CAINFO NODE_EXTRA_CA_CERTS ENV BASH_ENV CDPATH
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root USER=root LOGNAME=root PYTHONSAFEPATH=1
fi
