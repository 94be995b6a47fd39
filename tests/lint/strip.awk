# SPDX-License-Identifier: Apache-2.0
# C source without its comments, and, with -v strings=0, without what stands in its string and character literals. Every
# line is printed as FILE:LINE:text, so that a match can be reported by place.
function flush_line() { print FILENAME ":" FNR ":" out }
FNR == 1 { comment = 0 }
{
    out = ""; n = length($0); quote = ""
    for (i = 1; i <= n; i++) {
        c = substr($0, i, 1); two = substr($0, i, 2)
        if (comment) { if (two == "*/") { comment = 0; i++; out = out " " } }
        else if (quote != "") {
            if (c == "\\") { if (strings) out = out two; i++ }
            else if (c == quote) { quote = ""; out = out c }
            else if (strings) out = out c
        }
        else if (two == "/*") { comment = 1; i++ }
        else if (two == "//") break
        else { if (c == "\"" || c == "'") quote = c; out = out c }
    }
    flush_line()
}
