#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Who may include what:
#   common/base         libc and its own headers
#   a third-party library  by one module of the tree, x.c and perhaps x_*.c beside it, and by no header (cmocka: by tests)
#   services/X          common/ and proto/ by folder, its own headers by bare name, or from services/X on where they stand
#                       in another folder ("limits/lease.h"); no other service
#   services/edge       a folder includes those that stand before it in `order`, of which the first stand alone, so that
#                       they form no circles; headers of services/edge itself stand between them, and its .c see all
#   common, proto       never a service
cd "${1:-.}" || exit 2
tmp=$(mktemp)
trap 'rm -f "$tmp"' EXIT
find common proto services tests -name node_modules -prune -o \( -name '*.c' -o -name '*.h' \) -print 2>/dev/null | LC_ALL=C sort >"$tmp"
[ -s "$tmp" ] || exit 0
xargs awk '
function exists(path,   line, ok) { ok = (getline line < path) >= 0; close(path); return ok }
function say(what) { print FILENAME ":" FNR ": " what; bad = 1 }
function library(h) {
    if (h == "openssl/ssl.h") return "libssl"
    if (h ~ /^openssl\/err/) return "" # goes with either half
    if (h ~ /^openssl\//) return "libcrypto"
    if (h ~ /^(mysql|mariadb)/) return "libmariadb"
    if (h ~ /^hiredis/) return "hiredis"
    if (h ~ /^nats/) return "libnats"
    return h
}
BEGIN {
    n = split("assert ctype dirent ftw dlfcn endian errno fcntl fenv float fnmatch getopt glob grp ifaddrs inttypes iso646 " \
              "langinfo limits locale malloc math netdb poll pthread pwd regex sched semaphore setjmp signal spawn " \
              "stdalign stdarg stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string strings syslog termios " \
              "threads time uchar unistd wchar wctype immintrin emmintrin cpuid", w, " ")
    for (i = 1; i <= n; i++) libc[w[i] ".h"] = 1
    alone = split("net dialects limits records", w, " ")
    n = split("net dialects limits records upstreams match checks .h client flow ops .c", w, " ")
    for (i = 1; i <= n; i++) order[w[i]] = i
}
# Where a path below services/edge stands: by its folder, or as .h or .c of services/edge itself.
function rank(path,   part) {
    if (split(path, part, "/") == 1) sub(/^.*\./, ".", part[1])
    return part[1] in order ? order[part[1]] : 0
}
function edge_order(path, h,   from, to) {
    sub(/^services\/edge\//, "", path)
    from = rank(path); to = rank(h)
    if (from == 0) say("services/edge/" path " has no place in the order of folders")
    else if (from != to && (from <= alone || to == 0 || to > from)) say("services/edge/" path " comes before \"" h "\"")
}
/^[ \t]*#[ \t]*include/ {
    line = $0
    if (match(line, /<[^>]+>/)) {
        h = substr(line, RSTART + 1, RLENGTH - 2)
        if (h in libc || h ~ /^(sys|netinet|arpa|linux|net|asm)\//) next
        if (h == "cmocka.h") { if (FILENAME !~ /^tests\//) say("<cmocka.h> outside of tests"); next }
        if (FILENAME ~ /^common\/base\//) { say("common/base is libc only, not <" h ">"); next }
        if (FILENAME ~ /\.h$/) { say("a third-party header in a header: <" h ">"); next }
        if (FILENAME ~ /^tests\//) next
        lib = library(h)
        if (lib == "") next
        if (!(lib in user)) { user[lib] = FILENAME; next }
        module = user[lib]; sub(/\.c$/, "_", module)
        if (user[lib] != FILENAME && index(FILENAME, module) != 1) say("<" h "> is for " user[lib] " alone")
        next
    }
    if (!match(line, /"[^"]+"/)) next
    h = substr(line, RSTART + 1, RLENGTH - 2)
    split(FILENAME, at, "/")
    if (at[1] == "tests") next
    if (h ~ /\.\./ || h ~ /^services\//) { say("no way around the folders: \"" h "\""); next }
    if (at[1] == "common" && at[2] == "base" && h !~ /^base\//) { say("common/base includes base/ only, not \"" h "\""); next }
    if (h ~ /\//) {
        split(h, to, "/")
        if (to[1] == "proto") ok = exists(h); else ok = exists("common/" h)
        if (!ok && at[1] == "services") {
            ok = exists("services/" at[2] "/" h)
            if (ok && at[2] == "edge") edge_order(FILENAME, h)
        }
        if (!ok) say("no such header in common/, proto/ or this service: \"" h "\"")
    } else {
        dir = FILENAME; sub(/[^\/]*$/, "", dir)
        ok = exists(dir h)
        if (!ok && at[1] == "services") {
            ok = exists("services/" at[2] "/" h)
            if (ok && at[2] == "edge") edge_order(FILENAME, h)
        }
        if (!ok) say("not a header of this folder: \"" h "\"")
    }
}
END { exit bad }
' <"$tmp"
