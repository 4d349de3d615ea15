# Login shells. Debian's file puts ~/bin and ~/.local/bin first; PATH is the container's here, and stays.
if [ -n "$BASH_VERSION" ] && [ -f "$HOME/.bashrc" ]; then
    # shellcheck source=/dev/null
    . "$HOME/.bashrc"
fi
