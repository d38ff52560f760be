# Completions of PROGRAM for fish:  PROGRAM completion fish | source
function __PROGRAM_complete
    set -l before (commandline -opc)
    set -l current (commandline -ct)
    for line in (command PROGRAM complete -- $before[2..-1] "$current" 2>/dev/null)
        switch $line
            case :files
                __PROGRAM_paths "$current" '.*'
            case :dirs
                __PROGRAM_paths "$current" '.*/'
            case :yaml
                __PROGRAM_paths "$current" '.*(?:/|\.ya?ml)'
            case '*'
                echo $line
        end
    end
end

# Paths that match, also behind --flag=.
function __PROGRAM_paths
    set -l flag (string match -r '^--[^=]*=' -- $argv[1])
    set -l path (string replace -r '^--[^=]*=' '' -- $argv[1])
    for line in (__fish_complete_path "$path" | string match -r -- "^$argv[2]"'(?:\t.*)?$')
        echo "$flag$line"
    end
end

complete -c PROGRAM -f -a '(__PROGRAM_complete)'
