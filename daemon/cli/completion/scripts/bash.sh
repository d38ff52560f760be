# Completions of PROGRAM for bash:  source <(PROGRAM completion bash)
_PROGRAM() {
    local word tail prefix line last= n=0 words=()
    COMPREPLY=()
    # What bash has split at = and : is put together again.
    for word in "${COMP_WORDS[@]:1:COMP_CWORD}"; do
        if ((n > 0)) && [[ $word == [=:] || $last == [=:] ]]; then
            words[n - 1]+=$word
        else
            words[n++]=$word
        fi
        last=$word
    done
    # bash replaces only what comes after the last of these.
    tail=${COMP_WORDS[COMP_CWORD]}
    [[ $tail == [=:] ]] && tail=
    prefix=${words[n - 1]%"$tail"}
    while IFS= read -r line; do
        case $line in
            :files) _PROGRAM_files "$tail" -f ;;
            :dirs) _PROGRAM_files "$tail" -d ;;
            :yaml)
                _PROGRAM_files "$tail" -d
                _PROGRAM_files "$tail" -f -X '!*.yaml'
                _PROGRAM_files "$tail" -f -X '!*.yml'
                ;;
            *)
                line=${line%%$'\t'*}
                COMPREPLY+=("${line#"$prefix"}")
                ;;
        esac
    done < <(command PROGRAM complete -- "${words[@]}" 2>/dev/null)
}

_PROGRAM_files() {
    local name start=$1
    shift
    compopt -o filenames 2>/dev/null
    while IFS= read -r name; do
        [[ $name == .* && $start != .* ]] || COMPREPLY+=("$name")
    done < <(compgen "$@" -- "$start")
}

complete -F _PROGRAM PROGRAM
