//! URLs of those that lockgate asks: authorities, `ask`, a vault.

use super::diagnostic::{Wrong, shown};
use super::keys::either;
use super::reader::Value;

/// A URL with one of `schemes`, a host and neither user nor fragment, in normal form.
///
/// # Errors
/// It is something else; `example` is what one would write.
pub fn web_url(value: &Value, schemes: &[&str], example: &str) -> Result<reqwest::Url, Wrong> {
    let text = value.text()?.trim();
    let wrong = |remedy: String| {
        let message = format!("`{}` is not a URL with {}", shown(text), either(schemes));
        Err(Wrong::new(message, remedy))
    };
    let Ok(url) = reqwest::Url::parse(text) else { return wrong(format!("write \"{example}\"")) };
    // A URL's parser would make one of `https:host` and `https:///host` too.
    let has_authority = text.split_once("://").is_some_and(|(_, rest)| !rest.starts_with('/'));
    if !has_authority || !schemes.contains(&url.scheme()) || !url.has_host() {
        return wrong(format!("write \"{example}\""));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return wrong("leave out the user name and password".to_owned());
    }
    if url.fragment().is_some() {
        return wrong("leave out the `#` and what follows".to_owned());
    }
    Ok(url)
}
