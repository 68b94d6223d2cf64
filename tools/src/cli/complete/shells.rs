//! The shells' side of completion: each asks `volmgr complete` what could stand at the cursor.

use clap::ValueEnum;

/// Shells that completions are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// bash, version 4 or newer.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}

/// The script for a shell.
pub fn script(shell: Shell) -> &'static str {
    match shell {
        Shell::Bash => BASH,
        Shell::Zsh => ZSH,
        Shell::Fish => FISH,
    }
}

const BASH: &str = r#"# Completion of volmgr for bash. The program itself says what fits, names of volumes, groups, disks and
# peers included.
_volmgr() {
    local cur=${COMP_WORDS[COMP_CWORD]} line files=
    COMPREPLY=()
    while IFS= read -r line; do
        if [ "$line" = :files ]; then files=1; else COMPREPLY+=("$line"); fi
    done < <("${COMP_WORDS[0]}" complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    if [ -n "$files" ]; then
        compopt -o filenames 2>/dev/null
        while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -f -- "$cur")
    fi
}
complete -F _volmgr volmgr
"#;

const ZSH: &str = r#"#compdef volmgr
# Completion of volmgr for zsh. The program itself says what fits, names of volumes, groups, disks and peers
# included.
_volmgr() {
    local -a found
    local line files=
    while IFS= read -r line; do
        if [[ $line == :files ]]; then files=1; else found+=("$line"); fi
    done < <("${words[1]}" complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)
    (( $#found )) && compadd -Q -a found
    [[ -n $files ]] && _files
    return 0
}
if [ "$funcstack[1]" = "_volmgr" ]; then _volmgr "$@"; else compdef _volmgr volmgr; fi
"#;

const FISH: &str = r#"# Completion of volmgr for fish. The program itself says what fits, names of volumes, groups, disks and peers
# included.
function __volmgr_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    for line in ($words[1] complete -- $words[2..-1] "$current" 2>/dev/null)
        if test "$line" = :files
            __fish_complete_path "$current"
        else
            echo $line
        end
    end
end
complete -c volmgr -f -a '(__volmgr_complete)'
"#;
