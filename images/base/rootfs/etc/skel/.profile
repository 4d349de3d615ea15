# ~/.profile of login shells. PATH is the container's: ~/bin and ~/.local/bin are not put before it.
if [ -n "$BASH_VERSION" ] && [ -f "$HOME/.bashrc" ]; then
    # shellcheck source=/dev/null
    . "$HOME/.bashrc"
fi
