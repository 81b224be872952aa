//! A person's browser, as far as signing in needs one: cookies, redirects, forms.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use regex::Regex;
use url::Url;

use crate::outside::http::{Client, Reply};

/// How many redirects are followed in a row.
const REDIRECTS: usize = 20;

/// A browser with its cookies. It goes to addresses of this machine alone.
#[derive(Default)]
pub struct Browser {
    /// By host and port: real browsers share cookies between ports, which no test should rely on.
    cookies: BTreeMap<String, BTreeMap<String, String>>,
    /// Addresses that begin so are not gone to: what leads there ends in an empty page of status 0.
    pub stop: Option<String>,
    /// Every address it was at, the newest last.
    pub history: Vec<Url>,
}

/// A page that a browser shows.
#[derive(Debug, Clone)]
pub struct Page {
    pub url: Url,
    pub status: u16,
    pub text: String,
}

/// A form of a page.
#[derive(Debug, Clone)]
pub struct Form {
    pub action: Url,
    pub method: String,
    /// Its fields with the values they have, the first submit button's among them.
    pub fields: Vec<(String, String)>,
}

impl Browser {
    /// Goes to an address and follows where it leads.
    pub fn open(&mut self, url: &str) -> Page {
        self.go("GET", Url::parse(url).unwrap(), "")
    }

    /// Submits the page's first form with these fields filled in.
    pub fn submit(&mut self, page: &Page, filled: &[(&str, &str)]) -> Page {
        let form = page.forms().into_iter().next().unwrap_or_else(|| panic!("no form on {page:?}"));
        self.send(form, filled)
    }

    /// Submits a form with these fields filled in.
    pub fn send(&mut self, mut form: Form, filled: &[(&str, &str)]) -> Page {
        for (name, value) in filled {
            form.fields.retain(|(known, _)| known != name);
            form.fields.push(((*name).to_owned(), (*value).to_owned()));
        }
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&form.fields).finish();
        if form.method == "get" {
            form.action.set_query(Some(&body));
            return self.go("GET", form.action, "");
        }
        self.go("POST", form.action, &body)
    }

    /// Clicks through whatever forms there are until the address starts so: what a person does who
    /// agrees to everything. Names and passwords are made up.
    pub fn agree(&mut self, mut page: Page, until: &str) -> Page {
        for _ in 0..8 {
            if page.url.as_str().starts_with(until) {
                return page;
            }
            page = self.submit(&page, &[("login", "ada"), ("password", "x"), ("allow", "Authorize")]);
        }
        panic!("never came to {until}: {page:?}");
    }

    fn go(&mut self, method: &str, mut url: Url, body: &str) -> Page {
        let (mut method, mut body) = (method.to_owned(), body.to_owned());
        for _ in 0..REDIRECTS {
            if self.stop.as_ref().is_some_and(|stop| url.as_str().starts_with(stop)) {
                return Page { url, status: 0, text: String::new() };
            }
            let reply = self.fetch(&method, &url, &body);
            let Some(location) = reply.header("location").filter(|_| (300..400).contains(&reply.status)) else {
                let text = String::from_utf8_lossy(&reply.body).into_owned();
                return Page { url, status: reply.status, text };
            };
            let target = url.join(location).unwrap();
            if !matches!(reply.status, 307 | 308) {
                (method, body) = ("GET".to_owned(), String::new());
            }
            url = target;
        }
        panic!("redirected for ever, last to {url}");
    }

    fn fetch(&mut self, method: &str, url: &Url, body: &str) -> Reply {
        self.history.push(url.clone());
        let authority = authority(url);
        let own = self.cookies.entry(authority.clone()).or_default();
        let cookies = own.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ");
        let mut headers = vec![("accept", "text/html")];
        if !cookies.is_empty() {
            headers.push(("cookie", cookies.as_str()));
        }
        let origin = url.origin().ascii_serialization();
        if method == "POST" {
            headers.extend([("content-type", "application/x-www-form-urlencoded"), ("origin", origin.as_str())]);
        }
        let target = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        let mut client = Client::for_host(address(url), &authority);
        let reply = client.send(method, &target, &headers, body.as_bytes()).unwrap();
        let set = reply.headers.iter().filter(|(name, _)| name == "set-cookie").map(|(_, value)| value.as_str());
        for cookie in set {
            keep(self.cookies.entry(authority.clone()).or_default(), cookie);
        }
        reply
    }
}

fn address(url: &Url) -> SocketAddr {
    let port = url.port_or_known_default().unwrap();
    match url.host_str().unwrap() {
        "127.0.0.1" | "localhost" => SocketAddr::from(([127, 0, 0, 1], port)),
        host => panic!("the browser was sent to {host}"),
    }
}

fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn keep(jar: &mut BTreeMap<String, String>, cookie: &str) {
    let (pair, attributes) = cookie.split_once(';').unwrap_or((cookie, ""));
    let (name, value) = pair.split_once('=').unwrap();
    let attributes = attributes.to_ascii_lowercase();
    let ends = attributes.contains("max-age=0") || attributes.contains("1970");
    if ends {
        jar.remove(name);
    } else {
        jar.insert(name.to_owned(), value.to_owned());
    }
}

impl Page {
    /// A parameter of its address.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.url.query_pairs().find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
    }

    /// The forms in order.
    pub fn forms(&self) -> Vec<Form> {
        let forms = Regex::new(r"(?is)<form\b([^>]*)>(.*?)</form>").unwrap();
        forms.captures_iter(&self.text).map(|found| self.form(&found[1], &found[2])).collect()
    }

    fn form(&self, head: &str, inner: &str) -> Form {
        let action = attribute(head, "action").filter(|action| !action.is_empty());
        let action = action.map_or_else(|| self.url.clone(), |action| self.url.join(&action).unwrap());
        let method = attribute(head, "method").unwrap_or_default().to_ascii_lowercase();
        let controls = Regex::new(r"(?is)<(input|button)\b([^>]*)>").unwrap();
        let mut fields: Vec<(String, String)> = Vec::new();
        let mut submits = 0;
        for control in controls.captures_iter(inner) {
            let kind = attribute(&control[2], "type").unwrap_or_default().to_ascii_lowercase();
            let is_submit = kind == "submit" || (&control[1] == "button" && kind.is_empty());
            submits += usize::from(is_submit);
            let unchecked = kind == "checkbox" && !control[2].contains("checked");
            if let Some(name) = attribute(&control[2], "name").filter(|_| !unchecked && (!is_submit || submits == 1)) {
                fields.push((name, attribute(&control[2], "value").unwrap_or_default()));
            }
        }
        Form { action, method: if method.is_empty() { "get".to_owned() } else { method }, fields }
    }
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let found = Regex::new(&format!(r#"(?is)\b{name}\s*=\s*(?:"([^"]*)"|'([^']*)')"#)).unwrap();
    let value = found.captures(tag)?;
    let text = value.get(1).or(value.get(2))?.as_str();
    let plain = [
        ("&amp;", "&"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&#x27;", "'"),
        ("&#x2f;", "/"),
        ("&lt;", "<"),
        ("&gt;", ">"),
    ];
    Some(plain.iter().fold(text.to_owned(), |text, (escape, plain)| text.replace(escape, plain)))
}
