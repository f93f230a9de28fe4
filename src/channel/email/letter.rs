//! A message as a mail: headers, text and HTML, the foot that marketing needs, the ways to unsubscribe, and where it returns to.

use std::time::{Duration, SystemTime};

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, MultiPartKind, SinglePart};

use crate::channel::Outgoing;
use crate::engine::profile::Category;
use crate::engine::rule::Sender;
use crate::links::{Links, Purpose};

/// RFC 5321: no path is longer.
const ADDRESS_BYTES_MAX: usize = 254;

/// A mail ready to be handed over, with its envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Return path.
    pub from: String,
    pub to: String,
    /// The local part needs SMTPUTF8.
    pub needs_utf8: bool,
    /// Every line ends with CR LF.
    pub bytes: Vec<u8>,
}

/// Why no mail can be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LetterError {
    #[error("the address is not valid")]
    Address,
    #[error("nothing says from whom e-mails are (policy.channels.email.sender)")]
    NoSender,
    #[error("a marketing e-mail needs a way to unsubscribe: set `http.public_url` and `secrets.links`")]
    NoLinks,
    #[error("cannot be signed: {0}")]
    Unsigned(String),
    #[error("cannot be written as a mail: {0}")]
    Form(String),
}

/// How a person gets out, and where the shop is: what marketing says beside its own content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foot {
    pub unsubscribe_url: String,
    postal_address: String,
    locale: String,
}

impl Foot {
    /// None: the message needs no foot.
    ///
    /// # Errors
    /// It needs one and links cannot be made.
    pub fn of(outgoing: &Outgoing<'_>, links: Option<&Links>) -> Result<Option<Foot>, LetterError> {
        if outgoing.category != Category::Marketing {
            return Ok(None);
        }
        let links = links.ok_or(LetterError::NoLinks)?;
        let postal_address = outgoing.sender().and_then(|sender| sender.postal_address.as_deref()).unwrap_or_default();
        Ok(Some(Foot {
            unsubscribe_url: links.url(Purpose::Unsubscribe, outgoing.message),
            postal_address: postal_address.to_owned(),
            locale: outgoing.content.locale.clone(),
        }))
    }

    pub fn below_text(&self, text: &str) -> String {
        let Foot { unsubscribe_url, postal_address, locale } = self;
        format!("{}\n\n-- \n{postal_address}\n{}: {unsubscribe_url}\n", text.trim_end(), unsubscribe_word(locale))
    }

    /// Before the end of the body, or at the end.
    pub fn below_html(&self, html: &str) -> String {
        let (address, url) = (escaped(&self.postal_address), escaped(&self.unsubscribe_url));
        let word = unsubscribe_word(&self.locale);
        let foot = format!("<p style=\"font-size: 12px; color: #767676\">{address}<br><a href=\"{url}\">{word}</a></p>\n");
        let end = html.to_ascii_lowercase().rfind("</body>").unwrap_or(html.len());
        let (before, after) = html.split_at_checked(end).unwrap_or((html, ""));
        format!("{before}{foot}{after}")
    }
}

/// In the languages of the shipped pack and their neighbours; English elsewhere.
fn unsubscribe_word(locale: &str) -> &'static str {
    match locale.split(['-', '_']).next().unwrap_or_default() {
        "de" => "Abmelden",
        "es" => "Darse de baja",
        "fr" => "Se désabonner",
        "it" => "Annulla l’iscrizione",
        "nl" => "Afmelden",
        "pl" => "Wypisz się",
        "pt" => "Cancelar subscrição",
        "sv" => "Avsluta prenumerationen",
        _ => "Unsubscribe",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Writes a mail. `bounce_domain`: where a mail that cannot be delivered returns to, with an address of its own for each message.
///
/// # Errors
/// See [`LetterError`].
pub fn write(outgoing: &Outgoing<'_>, links: Option<&Links>, bounce_domain: Option<&str>) -> Result<Letter, LetterError> {
    let sender = outgoing.sender().ok_or(LetterError::NoSender)?;
    let from: Mailbox = sender.from.parse().map_err(|_| LetterError::NoSender)?;
    let to = address(outgoing.address).ok_or(LetterError::Address)?;
    let foot = Foot::of(outgoing, links)?;
    let return_path = match (bounce_domain, links) {
        (Some(domain), Some(links)) => format!("{}@{domain}", links.return_path(outgoing.message)),
        _ => from.email.to_string(),
    };
    let content = outgoing.content;
    let text = content.text.clone().unwrap_or_default();
    let plain = foot.as_ref().map_or(text.clone(), |foot| foot.below_text(&text));
    let html = content.html.as_ref().map(|html| foot.as_ref().map_or(html.clone(), |foot| foot.below_html(html)));

    let form = |error: &dyn std::fmt::Display| LetterError::Form(error.to_string());
    let sent_at = SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(outgoing.at.as_ms()).unwrap_or_default());
    let mut builder = lettre::Message::builder()
        .message_id(Some(format!("<{}@{}>", outgoing.message, from.email.domain())))
        .date(sent_at)
        .from(from)
        .to(Mailbox::new(None, to.clone()))
        .subject(content.subject.clone().unwrap_or_default());
    if let Some(reply_to) = sender.reply_to.as_ref().and_then(|address| address.parse().ok()) {
        builder = builder.reply_to(reply_to);
    }
    for (name, value) in headers(outgoing, sender, foot.as_ref()) {
        builder = builder.raw_header(HeaderValue::new(HeaderName::new_from_ascii(name.to_owned()).map_err(|e| form(&e))?, value));
    }
    let plain = SinglePart::plain(plain);
    let message = match html {
        // the boundary is the id's: the same message is the same bytes
        Some(html) => builder.multipart(
            MultiPart::builder()
                .kind(MultiPartKind::Alternative)
                .boundary(format!("rekindle-{}", outgoing.message))
                .singlepart(plain)
                .singlepart(SinglePart::builder().header(ContentType::TEXT_HTML).body(html)),
        ),
        None => builder.singlepart(plain),
    };
    let bytes = with_crlf(&message.map_err(|e| form(&e))?.formatted());
    Ok(Letter { from: return_path, needs_utf8: !to.user().is_ascii(), to: to.to_string(), bytes })
}

/// What mail programs go by: our id for whatever comes back, the list, and how to get off it with one click (RFC 8058).
fn headers(outgoing: &Outgoing<'_>, sender: &Sender, foot: Option<&Foot>) -> Vec<(&'static str, String)> {
    let mut headers = vec![("X-Rekindle-Message", outgoing.message.to_string())];
    if let Some(list) = list_id(outgoing, sender) {
        headers.push(("List-Id", list));
    }
    if let Some(foot) = foot {
        headers.push(("List-Unsubscribe", format!("<{}>", foot.unsubscribe_url)));
        headers.push(("List-Unsubscribe-Post", ONE_CLICK.to_owned()));
    }
    headers
}

pub const ONE_CLICK: &str = "List-Unsubscribe=One-Click";

/// One list for each category, so that mailbox providers can tell a receipt from an offer.
pub fn list_id(outgoing: &Outgoing<'_>, sender: &Sender) -> Option<String> {
    sender.list_id.as_ref().map(|list| format!("<{}.{list}>", outgoing.category.name()))
}

/// The address with its domain in ASCII; none: nothing that a command or a header may hold.
pub fn address(text: &str) -> Option<lettre::Address> {
    if text.len() > ADDRESS_BYTES_MAX || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return None;
    }
    let (user, domain) = text.rsplit_once('@')?;
    let domain = match url::Host::parse(domain).ok()? {
        url::Host::Domain(ascii) => ascii,
        _ => return None,
    };
    lettre::Address::new(user, domain).ok()
}

/// Every kind of line end becomes CR LF: a bare LF or CR could end the mail early for one server and not for the next.
fn with_crlf(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 64);
    let mut before = 0;
    for &byte in bytes {
        match byte {
            b'\n' if before == b'\r' => {} // written with its CR
            b'\n' | b'\r' => out.extend_from_slice(b"\r\n"),
            byte => out.push(byte),
        }
        before = byte;
    }
    if !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_end_becomes_one() {
        for (from, to) in [
            ("a\nb", "a\r\nb\r\n"),
            ("a\rb\r\n", "a\r\nb\r\n"),
            ("a\r\r\nb", "a\r\n\r\nb\r\n"),
            ("a\n\n.\nb\n", "a\r\n\r\n.\r\nb\r\n"),
            ("", "\r\n"),
        ] {
            assert_eq!(with_crlf(from.as_bytes()), to.as_bytes(), "{from:?}");
        }
    }

    #[test]
    fn addresses_are_made_fit_for_a_command_or_refused() {
        for (text, expected) in [
            ("ana@post.example", Some("ana@post.example")),
            ("Ana.B+news@POST.example", Some("Ana.B+news@post.example")),
            ("ana@bücher.example", Some("ana@xn--bcher-kva.example")),
            ("jörg@post.example", Some("jörg@post.example")),
            ("ana@例え.テスト", Some("ana@xn--r8jz45g.xn--zckzah")),
            ("ana@post.example\r\nBcc: eve@post.example", None),
            ("ana\n@post.example", None),
            ("ana\0@post.example", None),
            ("<ana@post.example>", None),
            ("ana@post.example, eve@post.example", None),
            ("ana@post.example> SIZE=1 <x", None),
            ("ana@127.0.0.1", None),
            ("@post.example", None),
            ("ana@", None),
            ("ana", None),
        ] {
            assert_eq!(address(text).map(|address| address.to_string()).as_deref(), expected, "{text:?}");
        }
        assert_eq!(address(&format!("{}@post.example", "a".repeat(500))), None);
    }

    #[test]
    fn the_foot_stands_below_both_parts() {
        let foot = Foot { unsubscribe_url: "https://x/u/T".into(), postal_address: "A & B, 1 <High> St".into(), locale: "de-AT".into() };
        assert_eq!(foot.below_text("Hallo\n"), "Hallo\n\n-- \nA & B, 1 <High> St\nAbmelden: https://x/u/T\n");
        let html = foot.below_html("<html><BODY><p>Hallo</p></BODY></html>");
        assert!(html.ends_with("<a href=\"https://x/u/T\">Abmelden</a></p>\n</BODY></html>"), "{html}");
        assert!(html.contains("A &amp; B, 1 &lt;High&gt; St") && foot.below_html("<p>x").starts_with("<p>x<p style"));
    }
}
