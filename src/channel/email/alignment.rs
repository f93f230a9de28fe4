//! Whether mails are signed for the domain that they say to be from. A signature of another domain is valid and proves nothing: under
//! DMARC (RFC 7489) the mail counts as forged. Aligned, in its relaxed sense, are a domain and those below it.

use crate::engine::rule::ChannelPolicy;
use crate::engine::rule::diagnostic::Diagnostic;
use crate::settings::Settings;
use crate::settings::providers::{Provider, Smtp};

/// Relays by which mails would go out with signatures, none of which is the sender's. A relay without `dkim` signs by itself.
pub fn unaligned(settings: &Settings, channel: &ChannelPolicy) -> Vec<Diagnostic> {
    let Some(domain) = channel.sender.as_ref().and_then(|sender| domain_of(&sender.from)) else { return Vec::new() };
    let provider = &*channel.provider;
    let names = match settings.providers.get(provider) {
        Some(Provider::Pool(of)) => of.iter().map(String::as_str).collect(),
        _ => vec![provider],
    };
    let finding = |(name, smtp): (&str, &Smtp)| {
        let signed: Vec<&str> = smtp.dkim.iter().map(|dkim| dkim.domain.as_str()).collect();
        if signed.is_empty() || signed.iter().any(|signed| are_aligned(signed, &domain)) {
            return None;
        }
        let message = format!("mails from `{domain}` are signed by `{name}` for {} only", signed.join(", "));
        let finding = Diagnostic::error("RK0413", channel.place.clone(), message).len(provider.chars().count());
        Some(finding.help(format!("add a key of `{domain}` to `providers.{name}.dkim`, or send from a domain that is signed")))
    };
    let relays = names.into_iter().filter_map(|name| match settings.providers.get(name) {
        Some(Provider::Smtp(smtp)) => Some((name, smtp)),
        _ => None,
    });
    relays.filter_map(finding).collect()
}

/// The domain of `The shop <news@shop.example>`.
fn domain_of(from: &str) -> Option<String> {
    let address = from.rsplit_once('<').map_or(from, |(_, address)| address.trim_end_matches('>'));
    address.rsplit_once('@').map(|(_, domain)| domain.trim().to_lowercase())
}

/// One is the other, or lies below it. (That two lie below a third one, which the shop owns, takes a list of public suffixes to tell.)
fn are_aligned(a: &str, b: &str) -> bool {
    let (a, b) = (a.to_lowercase(), b.to_lowercase());
    let is_below = |below: &str, above: &str| below.strip_suffix(above).is_some_and(|rest| rest.ends_with('.')) && above.contains('.');
    a == b || is_below(&a, &b) || is_below(&b, &a)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_and_those_below_it_are_aligned() {
        for (from, signed, aligned) in [
            ("The shop <news@shop.example>", "shop.example", true),
            ("news@Shop.Example", "SHOP.example", true),
            ("news@mail.shop.example", "shop.example", true),
            ("news@shop.example", "mail.shop.example", true),
            ("news@shop.example", "myshop.example", false),
            ("news@shop.example", "example", false),
            ("news@shop.example", "relay.example", false),
        ] {
            let domain = domain_of(from).expect("a domain");
            assert_eq!(are_aligned(signed, &domain), aligned, "{from} {signed}");
        }
    }
}
