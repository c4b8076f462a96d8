#!/usr/bin/env bash
# Makes manual pages and completions from the output of `sarus help` and from docs/:
# pages.sh BINARY DIRECTORY
#
# A new command or option in the program's table appears in all of them. docs/man/COMMAND.md has the
# sections that help lacks (examples, files).
set -euo pipefail
umask 022

binary=$(realpath "$1")
mkdir -p "$(dirname "$2")"
result=$(realpath "$2")
# Builds in a temporary directory, so the result is complete or absent.
share=$(mktemp -d "$result.XXXXXX")
trap 'rm -rf "$share"' EXIT
cd "$(dirname "$0")/.."

version=$("$binary" sarus version)

# "run|Run a command in a new container" for each command.
commands() { "$binary" sarus help | sed -n 's/^   \([a-z-]*\): *\(.*\)/\1|\2/p'; }

names() { commands | cut -d'|' -f1 | paste -sd' '; }

# "t|--tty||Allocate ..." for each option of a command, or of all: the letter or nothing, the name,
# " arg" or " [=arg]" if it takes a value, and the description.
options() {
    "$binary" sarus help "$@" | sed -n '/^Options:/,/^$/s/^  \(-\(.\) \[ \)\?\(--[a-z-]*\)\( \]\)\?\( arg\| \[=arg\]\)\?  *\([A-Z].*\)/\2|\3|\5|\6/p'
}

# Prints the kind of a command's first argument: image, file, command or nothing.
argument() {
    case $("$binary" sarus help "$1" | sed -n '1s/^Usage: sarus [a-z-]* *//p') in
    *FILE*) echo file ;;
    *REPOSITORY*) echo image ;;
    *COMMAND*) echo command ;;
    esac
}

# --- Manual pages: help becomes Markdown, and Markdown becomes pages.

page() { awk -v page="$1" -v version="$version" -f scripts/man.awk >"$share/man/man${2}/${1%(*}.$2"; }

option_table() {
    printf '\n## Options\n\n| option | meaning |\n| --- | --- |\n'
    options "$@" | while IFS='|' read -r letter name value about; do
        value=${value/ \[=arg\]/[=arg]}
        echo "| \`${letter:+-$letter}\`${letter:+, }\`$name${value/ arg/ ARG}\` | $about. |"
    done | sed 's/``//'
}

command_page() {
    printf '## Name\n\nsarus-%s - %s\n\n## Synopsis\n\n' "$1" "$2"
    "$binary" sarus help "$1" | sed -n '1s/^Usage: \(.*\)/\x60\1\x60/p'
    printf '\n## Description\n'
    "$binary" sarus help "$1" | sed '1d; 3s/$/./; /^Options:/,$d'
    [ -z "$(options "$1")" ] || option_table "$1"
    [ ! -f "docs/man/$1.md" ] || { echo && cat "docs/man/$1.md"; }
    printf '\n## See also\n\nsarus(1), sarus.json(5), hooks(8)\n'
}

main_page() {
    printf '## Name\n\nsarus - run OCI containers on HPC systems\n\n## Synopsis\n\n'
    printf '\x60sarus [--debug | --verbose] COMMAND [ARG...]\x60\n\n'
    sed '/^## Files/,$d' docs/man/sarus.md
    option_table
    printf '\n## Commands\n\n| command | meaning |\n| --- | --- |\n'
    commands | while IFS='|' read -r name about; do echo "| \`sarus-$name\`(1) | $about. |"; done
    echo
    sed -n '/^## Files/,$p' docs/man/sarus.md
}

# Prints a page of docs/: the first paragraph is the description.
document_page() {
    printf '## Name\n\n%s - %s\n\n## Description\n' "$1" "$2"
    # Links to documents that are pages too become references to these.
    sed '1d; s/\[hooks\.md\]([^)]*)/\x60hooks\x60(8)/g; s/\[configuration\.md\]([^)]*)/\x60sarus.json\x60(5)/g' "$3"
    printf '\n## See also\n\n\x60sarus\x60(1), \x60sarus.json\x60(5), \x60hooks\x60(8). The other documents are in \x60doc/sarus\x60, beside \x60man\x60.\n'
}

mkdir -p "$share/man"/man{1,5,8}
main_page | page 'sarus(1)' 1
commands | while IFS='|' read -r name about; do
    command_page "$name" "$about" | page "sarus-$name(1)" 1
done
document_page sarus.json 'the configuration of Sarus' docs/configuration.md | page 'sarus.json(5)' 5
document_page hooks 'OCI hooks that come with Sarus' docs/hooks.md | page 'hooks(8)' 8

# --- Completions: etc/completions has the part that is common to all commands.

# Prints the lines for the shell $1 that replace @TABLE@ in etc/completions/$1.
table() {
    "${1}_command" '' ''
    commands | while IFS='|' read -r name about; do "${1}_command" "$name" "$about"; done
}

# Filters out --help, which every command has.
but_help() { sed '/|--help|/d'; }

# Prints the options of a command as words of one string.
bash_command() {
    local names values
    names=$(options ${1:+"$1"} | but_help | awk -F'|' '{ if ($1) printf "-%s ", $1; printf "%s ", $2 }')
    values=$(options ${1:+"$1"} | awk -F'|' '$3 == " arg" { if ($1) printf "-%s ", $1; printf "%s ", $2 }')
    echo "    '$1') options='$names--help' values='$values' argument='${1:+$(argument "$1")}' ;;"
}

zsh_command() {
    echo "    '$1')"
    [ -z "$1" ] || echo "        argument='$(argument "$1")'"
    echo "        options=("
    options ${1:+"$1"} | but_help | while IFS='|' read -r letter name value about; do
        # Escapes characters that are special to _arguments.
        about=$(sed "s/'/'\\\\''/g; s/[]:[]/\\\\&/g" <<<"$about")
        case $value in
        ' arg') value=":value: _sarus_value $name" sign='=' ;;
        ' [=arg]') value='::value:' sign='=-' ;;
        *) sign='' ;;
        esac
        echo "            '*$name${sign}[$about]$value'"
        [ -z "$letter" ] || echo "            '*-$letter${value:++}[$about]$value'"
    done
    printf "        )\n        ;;\n"
}

fish_command() {
    local condition=__fish_use_subcommand what
    if [ -n "$1" ]; then
        echo "complete -c sarus -n __fish_use_subcommand -a '$1' -d '${2//\'/\\\'}'"
        condition="'__fish_seen_subcommand_from $1'"
        case $(argument "$1") in
        image) what='(sarus images --quiet 2>/dev/null)' ;;
        command) what="$(names)" ;;
        file) echo "complete -c sarus -n $condition -F" ;;
        esac
        [ -z "${what-}" ] || echo "complete -c sarus -n $condition -a '$what'"
    fi
    options ${1:+"$1"} | but_help | sed "s/'/\\\\'/g" | while IFS='|' read -r letter name value about; do
        if [ "$value" = ' arg' ]; then value=' -r'; else value=''; fi
        echo "complete -c sarus -n $condition${letter:+ -s $letter} -l ${name#--}$value -d '$about'"
    done
}

# Writes the completion for the shell $1 to $2, the path where the shell looks for it.
complete_for() {
    mkdir -p "$(dirname "$share/$2")"
    table "$1" >"$share/.table"
    sed -e "/@TABLE@/{r $share/.table" -e 'd}' -e "s/@COMMANDS@/$(names)/" "etc/completions/$1" >"$share/$2"
    rm "$share/.table"
}

complete_for bash bash-completion/completions/sarus
complete_for zsh zsh/site-functions/_sarus
complete_for fish fish/vendor_completions.d/sarus.fish

# --- Documents and licence.

install -D -m 644 -t "$share/doc/sarus" README.md CHANGELOG.md CONTRIBUTING.md LICENSE SECURITY.md
install -D -m 644 -t "$share/doc/sarus/docs" docs/*.md
install -D -m 644 -t "$share/doc/sarus/scripts" scripts/bench-mpi.c
# The source is not installed: removes links into it.
sed -i 's#\[\([^]]*\)\](\.\./\(src\|applets\|scripts/[a-z]*\.sh\)[^)]*)#\1#g' "$share/doc/sarus/docs"/*.md

chmod 755 "$share"
rm -rf "$result"
mv "$share" "$result"
