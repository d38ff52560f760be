#compdef PROGRAM
# Completions of PROGRAM for zsh:  source <(PROGRAM completion zsh)
# or as a file _PROGRAM in a directory of $fpath.
_PROGRAM() {
    local line name text
    local -a found
    while IFS= read -r line; do
        case $line in
            :files) _PROGRAM_files ;;
            :dirs) _PROGRAM_files -/ ;;
            :yaml) _PROGRAM_files -g '*.(yaml|yml)' ;;
            *)
                name=${line%%$'\t'*}
                text=${line#*$'\t'}
                found+=("${name//:/\\:}${text:+:$text}")
                ;;
        esac
    done < <(command PROGRAM complete -- "${(@Q)words[2,CURRENT-1]}" "$PREFIX" 2>/dev/null)
    (( $#found )) && _describe -t values value found
}

_PROGRAM_files() {
    [[ $PREFIX == --*=* ]] && compset -P '*='
    _files "$@"
}

if [[ ${funcstack[1]} == _PROGRAM ]]; then
    _PROGRAM "$@"
else
    compdef _PROGRAM PROGRAM
fi
