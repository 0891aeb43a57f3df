# Turns measurements (round, script, clients, transactions a second) into the table that people read and bench.json.

function median(script, clients,    n, i, j, v, list) {
    n = count[script, clients]
    for (i = 1; i <= n; i++) {
        v = value[script, clients, i]
        for (j = i - 1; j >= 1 && list[j] > v; j--) list[j + 1] = list[j]
        list[j + 1] = v
    }
    return n % 2 ? list[(n + 1) / 2] : (list[n / 2] + list[n / 2 + 1]) / 2
}

# One line of the second table: what was measured, what is required, whether it holds.
function judge(what, clients, measured, required, at_most,    holds) {
    holds = required == "" ? "" : (at_most ? measured <= required : measured >= required) ? "ok" : "BELOW"
    if (holds == "BELOW" && at_most) holds = "ABOVE"
    printf "%-60s %7s %9.2f %10s %s\n", what, clients, measured, required == "" ? "" : (at_most ? "<= " : ">= ") required, holds
    ratios = ratios (ratios == "" ? "" : ",\n") sprintf("    {\"ratio\": \"%s\", \"clients\": \"%s\", \"measured\": %.3f, \"required\": %s, \"holds\": %s}",
        what, clients, measured, required == "" ? "null" : "\"" (at_most ? "<= " : ">= ") required "\"", holds == "" ? "null" : (holds == "ok" ? "true" : "false"))
}

function against(what, ours, theirs, required,    i, c, wanted, n, part) {
    for (i = 1; i <= 4; i++) {
        c = clients[i]
        wanted = ""
        if (match(" " required, " " c ":[0-9.]+")) { split(substr(" " required, RSTART + 1, RLENGTH - 1), part, ":"); wanted = part[2] }
        judge(what, c, median(ours, c) / median(theirs, c), wanted, 0)
    }
}

BEGIN {
    split("1 4 16 32", clients, " ")
    names = split("select1 insert five_many five_hot call_many call_hot decrypt_many decrypt_hot", scripts, " ")
    title["select1"] = "SELECT 1"
    title["insert"] = "bare INSERT of one audit row"
    title["five_many"] = "five statements, 1000 keys"
    title["five_hot"] = "five statements, one hot key"
    title["call_many"] = "one plpgsql call, 1000 keys"
    title["call_hot"] = "one plpgsql call, one hot key"
    title["decrypt_many"] = "decrypt_provider_key, 1000 keys"
    title["decrypt_hot"] = "decrypt_provider_key, one hot key"
}

{ value[$2, $3, ++count[$2, $3]] = $4 }

END {
    printf "\n%s, %d rounds of %d s, medians\n\n%-36s%10s%10s%10s%10s\n", version, rounds, seconds, "transactions a second, clients:", 1, 4, 16, 32
    for (s = 1; s <= names; s++) {
        printf "%-36s", title[scripts[s]]
        line = sprintf("    {\"script\": \"%s\", \"title\": \"%s\"", scripts[s], title[scripts[s]])
        for (i = 1; i <= 4; i++) {
            m = median(scripts[s], clients[i])
            printf "%10.0f", m
            line = line sprintf(", \"%s\": %.1f", clients[i], m)
        }
        print ""
        tps = tps (s == 1 ? "" : ",\n") line "}"
    }
    printf "\n%-60s %7s %9s %10s\n", "ratio", "clients", "measured", "required"
    against("decrypt, 1000 keys / SELECT 1", "decrypt_many", "select1", "")
    # no requirement here: the script also looks the key's id up, which the INSERT has no counterpart for
    against("decrypt, 1000 keys with look-up / bare INSERT", "decrypt_many", "insert", "")
    against("decrypt, hot key / bare INSERT", "decrypt_hot", "insert", "1:0.75 16:1.0 32:1.0")
    against("decrypt / one plpgsql call, 1000 keys", "decrypt_many", "call_many", "16:1.3 32:1.3")
    against("decrypt / one plpgsql call, hot key", "decrypt_hot", "call_hot", "")
    against("decrypt / five statements, 1000 keys", "decrypt_many", "five_many", "")
    against("decrypt / five statements, hot key", "decrypt_hot", "five_hot", "16:7 32:8")
    judge("array of 1000 / row by row (" array " and " rows " ms)", 1, rows / array, 50, 0)
    judge("cold / warm key, warm connection (" cold " and " warm " ms)", 1, cold / warm, 1.5, 1)
    judge("first / (later + SELECT 1), new connection (" new_first ", " new_later " and " new_select " ms)", 1, new_first / (new_later + new_select), 3, 1)
    judge("cold / warm key, new connection (" new_cold " and " new_warm " ms)", 1, new_cold / new_warm, 1.5, 1)
    printf "\nmemory of one backend over %d decrypts: contexts %d -> %d bytes (%+d), resident %d -> %d kB (%+d)\n",
        calls, context_before, context_after, context_after - context_before, rss_before, rss_after, rss_after - rss_before
    printf "{\n  \"server\": \"%s\", \"rounds\": %d, \"seconds\": %d,\n  \"transactions_a_second\": [\n%s\n  ],\n", version, rounds, seconds, tps > json
    printf "  \"ratios\": [\n%s\n  ],\n", ratios > json
    printf "  \"memory\": {\"calls\": %d, \"context_bytes_before\": %d, \"context_bytes_after\": %d, \"resident_kb_before\": %d, \"resident_kb_after\": %d}\n}\n",
        calls, context_before, context_after, rss_before, rss_after > json
}
