//! Sizes as people write them.

/// Reads `64MiB`, `1G` or a plain number of bytes: units of 1024, with or without `iB`; `kB`, `MB` and `GB` are taken as the same,
/// as that is what limits of memory mean by them. Written again in the largest unit that leaves a whole number.
pub(super) fn parse(text: &str) -> Result<String, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits
        .trim_end()
        .parse()
        .map_err(|_| "write it as 64MiB, 1GiB or a number of bytes".to_owned())?;
    let unit = text[digits.len()..].to_ascii_lowercase();
    let unit: u64 = match unit.as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return Err(format!("unknown unit `{unit}`; there are KiB, MiB and GiB")),
    };
    let bytes = number.checked_mul(unit).ok_or("too much")?;
    if bytes == 0 {
        return Err("more than nothing".to_owned());
    }
    Ok(match bytes.trailing_zeros() {
        30.. => format!("{}GiB", bytes >> 30),
        20.. => format!("{}MiB", bytes >> 20),
        10.. => format!("{}KiB", bytes >> 10),
        _ => format!("{bytes}B"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, size) in [
            ("64MiB", "64MiB"),
            ("512m", "512MiB"),
            ("1024 KB", "1MiB"),
            ("2G", "2GiB"),
            ("1536M", "1536MiB"),
            ("100", "100B"),
            ("4096", "4KiB"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(size), "{text}");
        }
        for bad in [
            "",
            "0",
            "-1",
            "1.5G",
            "5X",
            "M",
            "99999999999999999999",
            "18446744073709551615G",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
