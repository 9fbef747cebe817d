//! Kubernetes' quantities, as far as sizes of volumes need them.

/// The number of bytes that a size such as `10Gi`, `1.5G` or `1e9` stands for, rounded up.
pub fn bytes(text: &str) -> Option<u128> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let digits: u128 = format!("0{whole}{fraction}").parse().ok()?;
    Some(digits.checked_mul(factor(suffix)?)?.div_ceil(scale))
}

fn factor(suffix: &str) -> Option<u128> {
    let power = |base: u128, exponent: u32| base.checked_pow(exponent);
    match suffix {
        "" => Some(1),
        "k" => power(1000, 1),
        "M" => power(1000, 2),
        "G" => power(1000, 3),
        "T" => power(1000, 4),
        "P" => power(1000, 5),
        "E" => power(1000, 6),
        "Ki" => power(1024, 1),
        "Mi" => power(1024, 2),
        "Gi" => power(1024, 3),
        "Ti" => power(1024, 4),
        "Pi" => power(1024, 5),
        "Ei" => power(1024, 6),
        _ => power(10, suffix.strip_prefix(['e', 'E'])?.parse().ok().filter(|&exponent| exponent <= 18)?),
    }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_are_read_as_kubernetes_reads_them() {
        let cases = [
            ("1Gi", 1 << 30),
            ("1024Mi", 1 << 30),
            ("1.5Ki", 1536),
            ("10G", 10_000_000_000),
            ("1e9", 1_000_000_000),
        ];
        for (text, expected) in cases {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
        for text in ["", ".", "Gi", "1Gib", "-1", "1 Gi", "1.2.3"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
