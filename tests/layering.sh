#!/usr/bin/env bash
# layering.sh - holds every #include to the house's directions: server -> engine -> kernels, config
# beside them, base below all. Prints each include that breaks one, and fails.
#   tests/layering.sh [ROOT]
#
# A line of the tables: room, then what its files may include. The longest room that a file lies in
# decides. "x/" is everything below x, "x/*.h" the headers right in x. Its own room is always allowed.
# The rooms of the engine see no options, only the hard limits; engine/model reads sampling defaults
# from generation_config.json, hence its way to sampling_params.
set -euo pipefail
cd "${1:-$(dirname "$0")/..}"

rooms='
base
config            base/
kernels           base/
engine            base/ config/ engine/ kernels/*.h
engine/text       base/ config/limits.h
engine/sched      base/ config/limits.h engine/request.h engine/spec/proposer.h
engine/sampling   base/ kernels/metadata.h
engine/spec       base/ config/limits.h
engine/model      base/ config/limits.h kernels/*.h kernels/quant/*.h engine/sampling/sampling_params.h engine/sampling/sampling_params.def
engine/exec       base/ kernels/*.h engine/sched/step.h engine/sched/kv_cache_groups.h engine/model/ engine/sampling/ engine/spec/
server            base/ server/api/*.h server/parsers/*.h config/ engine/engine.h engine/request.h engine/metrics.h engine/startup.h engine/text/*.h engine/sampling/sampling_params.h engine/sampling/sampling_params.def
server/api        base/ config/ engine/engine.h engine/request.h engine/metrics.h engine/text/*.h engine/sampling/sampling_params.h engine/sampling/sampling_params.def server/*.h server/parsers/*.h
server/parsers    base/ config/ engine/engine.h engine/request.h engine/metrics.h engine/text/*.h engine/sampling/sampling_params.h engine/sampling/sampling_params.def server/*.h
tests             base/ config/ engine/ kernels/ server/
'

# Outside libraries: header, then the rooms or files that may include it. What is not named here is the
# C or C++ library or the system, and open to all.
libraries='
microhttpd.h      server/http.c tests/
jansson.h         config/ server/ engine/text/ engine/model/ tests/
pcre2.h           engine/text/ tests/
utf8proc.h        engine/text/ tests/
sentencepiece_    engine/text/
curl/             engine/model/hub_http.c tests/
openssl/          engine/model/hub_digest.c tests/
cuda              kernels/cuda/
nccl.h            kernels/cuda/
xxhash.h          engine/model/packed_cache.c tests/
cmocka.h          tests/
'

folders=()
for folder in base config engine kernels server tests; do
    [ ! -d "$folder" ] || folders+=("$folder")
done
[ ${#folders[@]} -gt 0 ] || { echo "layering: found no sources here" && exit 1; }

find "${folders[@]}" -type f \
    \( -name '*.[ch]' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh' -o -name '*.def' \) |
    sort | xargs grep -nHE '^[[:space:]]*#[[:space:]]*include' /dev/null |
    awk -v rooms="$rooms" -v libraries="$libraries" '
    # True when `path` is what `rule` allows: a file, "room/" or "room/*.h".
    function allows(rule, path,    dir, rest) {
        if (rule == path) return 1
        if (rule ~ /\/$/) return index(path, rule) == 1
        if (rule ~ /\/\*\.h$/) {
            dir = substr(rule, 1, length(rule) - 3)
            rest = substr(path, length(dir) + 1)
            return index(path, dir) == 1 && rest !~ /\// && rest ~ /\.h$/
        }
        return 0
    }
    function bad(where, what, why) {
        printf "%s: #include %s: %s\n", where, what, why
        violations++
    }
    function room_of(path,    r, best) {
        for (r in allowed)
            if (index(path, r "/") == 1 && length(r) > length(best)) best = r
        return best
    }
    function check_own(where, file, path,    room, n, i, rules) {
        if (path !~ /\//) return bad(where, "\"" path "\"", "carries no full path from the root")
        if (path ~ /\.\.?\//) return bad(where, "\"" path "\"", "is a relative path")
        if (path !~ /\.(h|cuh|def)$/) return bad(where, "\"" path "\"", "is no header")
        room = room_of(file)
        if (index(path, room "/") == 1) {
            # A sub-room with rules of its own is not simply part of the room around it.
            if (room_of(path) == room) return
        }
        n = split(allowed[room], rules, " ")
        for (i = 1; i <= n; i++)
            if (allows(rules[i], path)) return
        bad(where, "\"" path "\"", "room " room "/ may not include it")
    }
    function check_library(where, file, path,    l, n, i, rules) {
        for (l in users) {
            if (index(path, l) != 1) continue
            n = split(users[l], rules, " ")
            for (i = 1; i <= n; i++)
                if (allows(rules[i], file)) return
            return bad(where, "<" path ">", "only " users[l] " may include it")
        }
        if (path ~ /^(base|config|engine|kernels|server|tests)\//)
            bad(where, "<" path ">", "our own headers are included with quotes")
    }
    BEGIN {
        n = split(rooms, lines, "\n")
        for (i = 1; i <= n; i++) {
            if (split(lines[i], word, " ") == 0) continue
            sub(/^[^ ]+ */, "", lines[i])
            allowed[word[1]] = lines[i]
        }
        n = split(libraries, lines, "\n")
        for (i = 1; i <= n; i++) {
            if (split(lines[i], word, " ") == 0) continue
            sub(/^[^ ]+ */, "", lines[i])
            users[word[1]] = lines[i]
        }
    }
    {
        split($0, part, ":")
        where = part[1] ":" part[2]
        file = part[1]
        text = $0
        sub(/^[^#]*#[ \t]*include[ \t]*/, "", text)
        checked++
        if (match(text, /^"[^"]+"/)) check_own(where, file, substr(text, 2, RLENGTH - 2))
        else if (match(text, /^<[^>]+>/)) check_library(where, file, substr(text, 2, RLENGTH - 2))
        else bad(where, text, "is neither <...> nor \"...\"")
    }
    END {
        if (violations == 0 && checked > 0) printf "layering: %d includes, all in order\n", checked
        else if (checked == 0) print "layering: found no sources here"
        else printf "layering: %d of %d includes break the house rules\n", violations, checked
        exit violations > 0 || checked == 0
    }'
