# Turns the Markdown of docs/ into a manual page: man.awk -v page="sarus.json(5)" -v version=1.0
#
# Supports the subset of docs/: headings, paragraphs, lists, tables (a row becomes an item), fenced blocks,
# `code`, **strong** and [links](...), of which the text stays.

function literal(text) {
    gsub(/\\/, "\\e", text)
    gsub(/-/, "\\-", text)
    return text
}

# Makes code bold, and escapes everything that roff would take for a command.
function inline(text,    parts, count, i, shown) {
    count = split(text, parts, "`")
    for (i = 1; i <= count; i++) {
        if (i % 2 == 0) {
            code = literal(parts[i])
            # Allows breaks in code that is too long for a line.
            if (length(code) > 60) gsub("/", "/\\:", code)
            shown = shown "\\fB" code "\\fR"
            continue
        }
        while (match(parts[i], /\[[^]]*\]\([^)]*\)/)) {
            link = substr(parts[i], RSTART, RLENGTH)
            sub(/^\[/, "", link); sub(/\]\(.*/, "", link)
            parts[i] = substr(parts[i], 1, RSTART - 1) link substr(parts[i], RSTART + RLENGTH)
        }
        gsub(/\\\|/, "|", parts[i])
        shown = shown literal(parts[i])
    }
    # Removes code marks within strong text, which is bold already.
    while (match(shown, /\*\*[^*]+\*\*/)) {
        strong = substr(shown, RSTART + 2, RLENGTH - 4)
        gsub(/\\f[BR]/, "", strong)
        shown = substr(shown, 1, RSTART - 1) "\\fB" strong "\\fR" substr(shown, RSTART + RLENGTH)
    }
    return shown ~ /^[.']/ ? "\\&" shown : shown
}

# Removes links around code before the line is split at its backquotes.
function unlinked(text) {
    while (match(text, /\[`[^`]*`\]\([^)]*\)/)) {
        link = substr(text, RSTART, RLENGTH)
        sub(/^\[/, "", link); sub(/\]\(.*/, "", link)
        text = substr(text, 1, RSTART - 1) link substr(text, RSTART + RLENGTH)
    }
    return text
}

# Prints a row below the titles as an item.
function row(line,    cells, count, i, rest) {
    gsub(/\\\|/, "\001", line)
    sub(/^\| */, "", line); sub(/ *\|$/, "", line)
    count = split(line, cells, / *\| */)
    # Prints titles only if there are more columns than a name and its meaning.
    for (i = 2; i <= count; i++) if (cells[i] != "")
        rest = rest (rest == "" ? "" : "; ") (count > 2 && titles[i] != "" ? titles[i] ": " : "") cells[i]
    gsub(/\001/, "|", cells[1]); gsub(/\001/, "|", rest)
    print ".TP\n" inline(unlinked(cells[1])) "\n" inline(unlinked(rest))
}

BEGIN {
    split(page, name, /[()]/)
    printf ".TH %s %s \"\" \"Sarus %s\" \"Sarus\"\n.nh\n.ad l\n", toupper(name[1]), name[2], version
}

/^ *```/ { fenced = !fenced; print fenced ? (top ? "" : ".PP\n") ".RS 4\n.nf" : ".fi\n.RE"; gap = top = 0; next }
fenced { line = literal($0); print line ~ /^[.']/ ? "\\&" line : line; next }

/^# / { next }
/^## / { print ".SH " toupper(inline(substr($0, 4))); top = 1; next }
/^### / { print ".SS " inline(substr($0, 5)); top = 1; next }

/^\|[ -]*-[ |:-]*$/ { table = 2; next }
/^\|/ {
    if (table == 2) { row($0); next }
    table = 1
    sub(/^\| */, ""); sub(/ *\|$/, "")
    split($0, titles, / *\| */)
    next
}
{ table = 0 }

/^ *$/ { gap = 1; next }
/^\* / { print ".IP \\(bu 2"; print inline(unlinked(substr($0, 3))); gap = 0; item = 1; next }
/^[0-9]+\. / { print ".IP " $1 " 4"; sub(/^[0-9]+\. /, ""); print inline(unlinked($0)); gap = 0; item = 1; next }
{
    if (gap && !top) print (item && /^ /) ? ".IP" : ".PP"
    if (!/^ /) item = 0
    gap = top = 0
    sub(/^ +/, "")
    print inline(unlinked($0))
}
