# Turns the lines of bench/redact.sql (what|measured|required) into the table that people read.

BEGIN { FS = "|"; printf "\n%-78s %10s %10s\n", "masking keys in text", "measured", "required" }

NF == 3 {
    split($3, required, " ")
    holds = $3 == "" ? "" : (required[1] == ">=" ? $2 + 0 >= required[2] + 0 : $2 + 0 <= required[2] + 0) ? "ok" : "MISSED"
    printf "%-78s %10.2f %10s %s\n", $1, $2, $3, holds
}
