//! The permission page: what is asked for, in words, and what the service needs to know.
//!
//! Only what the definition declares can be asked for: neither a link nor a form adds a scope or an input.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::browser::Browser;
use super::door::Visit;
use super::link::Link;
use super::page::{Page, host, prefix};
use super::trial::NotKept;
use super::{Connect, LinkRefused, Wanted, return_to, unable};
use crate::base::secret::Secret;
use crate::connection::directory::is_name;
use crate::connection::{Content, Credential};
use crate::definition::live::Generation;
use crate::definition::plan::oauth2::{Grant, Pkce, Scope};
use crate::definition::plan::{Auth, Input, Integration};
use crate::respond::{Answer, Refusal};

/// The most bytes of one value that a person enters; keys in PEM are the longest.
const MAX_VALUE: usize = 8 << 10;

/// How an integration's accounts are connected.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way<'a> {
    /// A person consents at the service.
    Provider {
        /// What can be asked for.
        scopes: &'a [Scope],
        /// The parameter of the callback that holds the code.
        code: &'a str,
        /// Whether codes are bound to this gateway by PKCE.
        pkce: bool,
    },
    /// A person consents at the service, on a device of their choice.
    Device {
        /// What can be asked for.
        scopes: &'a [Scope],
    },
    /// The application signs in for itself, with what the person tells.
    Itself,
    /// A person enters a key.
    Key,
    /// A person enters a name and a password.
    Password,
    /// A person enters an access key: its id and its secret.
    AccessKey,
    /// A person tells what the gateway signs in with, among the inputs.
    Login,
    /// No sign-in is needed.
    Nothing,
}

impl<'a> Way<'a> {
    /// The way of an integration.
    pub fn of(integration: &'a Integration) -> Self {
        match &integration.auth {
            Auth::OAuth2(oauth2) => match oauth2.grant {
                Grant::AuthorizationCode => Self::Provider {
                    scopes: &oauth2.scopes,
                    code: &oauth2.callback.code,
                    pkce: oauth2.pkce == Pkce::S256,
                },
                Grant::DeviceCode => Self::Device { scopes: &oauth2.scopes },
                Grant::ClientCredentials | Grant::JwtBearer | Grant::TokenExchange => Self::Itself,
            },
            // RFC 5849 has no scopes, and a verifier in the place of a code.
            Auth::OAuth1(_) => Self::Provider { scopes: &[], code: "oauth_verifier", pkce: false },
            Auth::ApiKey { .. } => Self::Key,
            Auth::Jwt(assertion) if assertion.key.is_none() => Self::Key,
            Auth::Basic => Self::Password,
            Auth::SigV4(sigv4) if sigv4.wants_key() => Self::AccessKey,
            Auth::Login(_) | Auth::SigV4(_) => Self::Login,
            Auth::None | Auth::Mtls | Auth::Jwt(_) => Self::Nothing,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Provider { .. } | Self::Device { .. } => "provider",
            Self::Itself | Self::Nothing => "nothing",
            Self::Key | Self::AccessKey => "key",
            Self::Password | Self::Login => "password",
        }
    }

    pub const fn scopes(self) -> &'a [Scope] {
        match self {
            Self::Provider { scopes, .. } | Self::Device { scopes } => scopes,
            Self::Itself | Self::Key | Self::Password | Self::AccessKey | Self::Login | Self::Nothing => &[],
        }
    }
}

/// Whether a link may be made for what is wanted.
///
/// # Errors
/// When it does not fit the definition or the settings.
pub(super) fn check_wanted(
    generation: &Generation,
    integration: &Integration,
    wanted: &Wanted,
) -> Result<(), LinkRefused> {
    let invalid = |text: String| Err(LinkRefused::Invalid(text));
    if !is_name(&wanted.connection) {
        return invalid("`connection`: a name has 1 to 128 letters, digits and `. _ - @ : +`".to_owned());
    }
    if integration.connection(&wanted.connection).is_some() {
        return invalid(format!("a file declares the connection `{}/{}`", integration.id, wanted.connection));
    }
    let way = Way::of(integration);
    if let Some(text) = &wanted.return_to {
        return_to::check(text, &generation.gateway).map_err(|error| LinkRefused::Invalid(error.to_string()))?;
    }
    if let Some(text) = &wanted.origin {
        return_to::check_origin(text, &generation.gateway).map_err(|error| LinkRefused::Invalid(error.to_string()))?;
    }
    let declared = way.scopes();
    let named = wanted.scopes.iter().chain(&wanted.optional).flatten();
    for name in named {
        if !declared.iter().any(|scope| scope.name == *name) {
            return invalid(format!("`{}` declares no scope `{name}`", integration.id));
        }
    }
    Ok(())
}

/// The origin of an address that people are sent back to; none for a path of our own.
pub(super) fn origin_of(return_to: Option<&str>, generation: &Generation) -> Option<String> {
    let text = return_to.filter(|text| !text.starts_with('/'))?;
    let url = return_to::check(text, &generation.gateway).ok()?;
    Some(url.origin().ascii_serialization())
}

/// The scopes of a link: those asked for in any case, and those a person may add.
pub(super) struct Offer<'a> {
    pub required: Vec<&'a Scope>,
    pub optional: Vec<&'a Scope>,
}

impl<'a> Offer<'a> {
    pub fn of(way: Way<'a>, link: &Link) -> Self {
        let among = |names: &Vec<String>, scope: &Scope| names.contains(&scope.name);
        let required = |scope: &&Scope| link.scopes.as_ref().map_or(scope.default, |names| among(names, scope));
        let may = |scope: &&Scope| match (&link.optional, &link.scopes) {
            (Some(names), _) => among(names, scope),
            (None, None) => true,
            (None, Some(_)) => false,
        };
        let (asked, rest): (Vec<_>, Vec<_>) = way.scopes().iter().partition(required);
        Self { required: asked, optional: rest.into_iter().filter(may).collect() }
    }

    /// The scopes that are asked for with these chosen; what is not offered does not count.
    pub fn asked(&self, chosen: &[&str]) -> Vec<String> {
        let added = self.optional.iter().filter(|scope| chosen.contains(&scope.name.as_str()));
        self.required.iter().chain(added).map(|scope| scope.name.clone()).collect()
    }
}

/// What a person sent with the form.
#[derive(Default)]
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    pub fn of(body: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(body).into_owned().collect())
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The one value of this name without spaces around it, which come along when something is pasted.
    pub fn one(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.trim())
    }
}

/// What a person told, when all of it is right.
pub(super) struct Entered {
    pub scopes: Vec<String>,
    pub inputs: Map<String, Json>,
    /// What they sign in with, where they enter it here.
    pub credential: Option<Credential>,
}

/// What is wrong with what a person entered, by field.
pub(super) type Wrong = HashMap<String, &'static str>;

/// Reads the form.
///
/// # Errors
/// What is wrong with it, by field.
pub(super) fn read(form: &Form, way: Way<'_>, link: &Link, integration: &Integration) -> Result<Entered, Wrong> {
    let mut wrong = Wrong::new();
    let mut inputs = Map::new();
    for input in &integration.inputs {
        let field = format!("input.{}", input.name);
        match value(input, form.one(&field)) {
            Ok(Some(value)) => _ = inputs.insert(input.name.to_string(), Json::from(value)),
            Ok(None) => {}
            Err(message) => _ = wrong.insert(field, message),
        }
    }
    let mut needed = |field: &str| {
        let text = form.one(field);
        if text.is_empty() || text.len() > MAX_VALUE {
            wrong.insert(field.to_owned(), if text.is_empty() { NEEDED } else { TOO_LONG });
        }
        Secret::from(text)
    };
    let credential = match way {
        Way::Provider { .. } | Way::Device { .. } | Way::Itself => None,
        Way::AccessKey => {
            let session = Some(Secret::from(form.one("session"))).filter(|session| !session.expose().is_empty());
            Some(Credential::AccessKey { id: needed("access_key"), secret: needed("access_secret"), session })
        }
        Way::Login | Way::Nothing => Some(Credential::None),
        Way::Key => Some(Credential::ApiKey(needed("api_key"))),
        // A password may be empty: some services want a key as the name and nothing else.
        Way::Password => {
            Some(Credential::Basic { username: needed("username"), password: Secret::from(form.one("password")) })
        }
    };
    if let (Some(Credential::ApiKey(key)), Auth::ApiKey { pattern: Some(pattern), .. }) =
        (&credential, &integration.auth)
        && !key.expose().is_empty()
        && !pattern.is_match(key.expose())
    {
        wrong.insert("api_key".to_owned(), "This does not look like a key of this service.");
    }
    if let Some(credential) = credential.as_ref().filter(|credential| !credential.is_sendable(integration)) {
        let field = if matches!(credential, Credential::AccessKey { .. }) { "access_key" } else { "api_key" };
        wrong.entry(field.to_owned()).or_insert(UNSENDABLE);
    }
    if wrong.is_empty() {
        let scopes = Offer::of(way, link).asked(&form.all("scope"));
        Ok(Entered { scopes, inputs, credential })
    } else {
        Err(wrong)
    }
}

const NEEDED: &str = "This is needed.";
const TOO_LONG: &str = "This is too long.";
const UNSENDABLE: &str = "This has characters that no key has, such as an accented letter: copy it again, whole.";
/// The field by which a person says that what could not be tried is to be kept.
pub(super) const UNTRIED: &str = "untried";

/// The value of an input: what was entered, else its default.
fn value(input: &Input, entered: &str) -> Result<Option<String>, &'static str> {
    let value = if entered.is_empty() { input.default.as_deref().unwrap_or_default() } else { entered };
    match value {
        "" if input.optional => Ok(None),
        "" => Err(NEEDED),
        long if long.len() > MAX_VALUE => Err(TOO_LONG),
        value if input.pattern.as_ref().is_some_and(|pattern| !pattern.is_match(value)) => {
            Err("This is not in the form that the service expects.")
        }
        value => Ok(Some(value.to_owned())),
    }
}

#[derive(Serialize)]
struct View<'a> {
    service: &'a str,
    connection: &'a str,
    again: bool,
    way: &'static str,
    action: String,
    required: Vec<ScopeView<'a>>,
    optional: Vec<ScopeView<'a>>,
    gone: Vec<String>,
    fields: Vec<Field<'a>>,
    problem: Option<ProblemView<'a>>,
    cancel: Option<String>,
}

/// What stands above the form when it was sent without success.
#[derive(Serialize)]
struct ProblemView<'a> {
    title: String,
    detail: Option<&'a str>,
    step: Option<&'a str>,
    /// The field that keeps what was entered without its being tried.
    confirm: Option<&'static str>,
}

impl<'a> ProblemView<'a> {
    fn of(not_kept: &'a NotKept, service: &str) -> Self {
        let (title, found, confirm) = match not_kept {
            NotKept::Refused(found) => (format!("This was tried at {service} and does not work."), found, None),
            NotKept::Untried(found) => {
                (format!("This could not be tried at {service} at the moment."), found, Some(UNTRIED))
            }
        };
        Self { title, detail: Some(&found.detail), step: Some(found.step), confirm }
    }

    fn of_form() -> Self {
        let title = "Something is missing or not in its form: see below.".to_owned();
        Self { title, detail: None, step: None, confirm: None }
    }
}

#[derive(Serialize)]
pub(super) struct ScopeView<'a> {
    pub name: &'a str,
    pub grants: &'a str,
    pub new: bool,
    pub chosen: bool,
}

#[derive(Serialize)]
struct Field<'a> {
    name: String,
    title: &'a str,
    help: Option<&'a str>,
    help_url: Option<&'a str>,
    choices: &'a [String],
    optional: bool,
    secret: bool,
    value: String,
    error: Option<&'static str>,
}

/// What a permission page shows besides the definition.
pub(super) struct Seen<'a> {
    pub generation: &'a Generation,
    pub integration: &'a Integration,
    pub link: &'a Link,
    /// The link's query, which the form sends again.
    pub query: &'a str,
    /// The connection as it is, where it is there already.
    pub before: Option<Content>,
}

impl Connect {
    /// Shows what a link asks for. The link is not used up by it: whoever sends links around opens them,
    /// and so do mail programs.
    pub(super) async fn permission(&self, integration: &str, visit: &Visit) -> Answer {
        let generation = self.live.load();
        let url = &generation.gateway.public_url;
        let browser = match Browser::known_or_new(&visit.headers, url, &*self.random) {
            Ok(browser) => browser,
            Err(error) => return unable(url, &LinkRefused::Keep(error.into())),
        };
        let asked = (integration, visit.query.as_str());
        let (link, integration, _) = match self.admitted(&generation, asked, Some(&browser.digest)).await {
            Ok(admitted) => admitted,
            Err(refused) => return refused,
        };
        let way = Way::of(integration);
        let before = self.before(&integration.id, &link.connection).await;
        let seen = Seen { generation: &generation, integration, link: &link, query: &visit.query, before };
        let (page, view) = page(&seen, way, (&Form::default(), &Wrong::new()), None);
        page.with_cookie(browser.set).show(view)
    }

    /// The stored connection of this name, where there is one that can be read, whatever its state.
    pub(super) async fn before(&self, integration: &str, connection: &str) -> Option<Content> {
        self.connections.peek(integration, connection).await.ok().flatten()
    }
}

/// The permission page with what is wrong with the form.
pub(super) fn faulty(seen: &Seen<'_>, way: Way<'_>, form: &Form, wrong: &Wrong) -> Answer {
    let (page, view) = page(seen, way, (form, wrong), Some(ProblemView::of_form()));
    page.refuse(Refusal::InvalidInput, view)
}

/// The permission page with what came of trying what was entered. Secrets have to be entered again.
pub(super) fn not_kept<'a>(seen: &Seen<'a>, way: Way<'a>, form: &Form, not_kept: &'a NotKept) -> Answer {
    let refusal = match not_kept {
        NotKept::Refused(_) => Refusal::InvalidInput,
        NotKept::Untried(_) => Refusal::ServiceUnreachable,
    };
    let problem = ProblemView::of(not_kept, &seen.integration.title);
    let (page, view) = page(seen, way, (form, &Wrong::new()), Some(problem));
    page.refuse(refusal, view)
}

fn page<'a>(
    seen: &Seen<'a>,
    way: Way<'a>,
    (form, wrong): (&Form, &Wrong),
    problem: Option<ProblemView<'a>>,
) -> (Page<'a>, impl Serialize + use<'a>) {
    let (url, integration, link) = (&seen.generation.gateway.public_url, seen.integration, seen.link);
    let offer = Offer::of(way, link);
    let before = seen.before.as_ref().and_then(|before| scopes_of(&before.credential));
    let chosen = form.all("scope");
    let scope = |scope: &'a Scope| ScopeView {
        name: &scope.name,
        grants: &scope.grants,
        new: before.as_ref().is_some_and(|before| !before.contains(&scope.name)),
        chosen: chosen.contains(&scope.name.as_str())
            || before.as_ref().is_some_and(|before| before.contains(&scope.name)),
    };
    let offered: Vec<&str> = offer.required.iter().chain(&offer.optional).map(|scope| scope.name.as_str()).collect();
    let gone = before.iter().flatten().filter(|name| !offered.contains(&name.as_str())).cloned().collect();
    let back = link.return_to.as_ref().and_then(|text| return_to::check(text, &seen.generation.gateway).ok());
    let again = seen.before.is_some();
    let title = if again { "Connect again" } else { "Connect" };
    let page = Page::new("permission", format!("{title}: {} – {}", integration.title, host(url)), url);
    let view = View {
        service: &integration.title,
        connection: &link.connection,
        again,
        way: way.as_str(),
        action: format!("{}/api/connect/{}?{}", prefix(url), integration.id, seen.query),
        required: offer.required.iter().map(|required| scope(required)).collect(),
        optional: offer.optional.iter().map(|optional| scope(optional)).collect(),
        gone,
        fields: fields(seen, way, form, wrong),
        problem,
        cancel: back.map(String::from),
    };
    (page.told_to(link.origin.as_deref()), view)
}

/// The fields of inputs and of the credential. Secrets that were entered are not sent back.
fn fields<'a>(seen: &Seen<'a>, way: Way<'_>, form: &Form, wrong: &Wrong) -> Vec<Field<'a>> {
    let known = seen.before.as_ref().map(|before| &before.inputs);
    let of_input = |input: &'a Input| {
        let name = format!("input.{}", input.name);
        let entered = Some(form.one(&name)).filter(|text| !text.is_empty());
        let before = known.and_then(|inputs| inputs.get(&*input.name)).and_then(Json::as_str);
        let shown = entered.or(before).or(input.default.as_deref()).unwrap_or_default();
        let value = if input.secret { String::new() } else { shown.to_owned() };
        let optional = input.optional || input.default.is_some();
        let of = Field::of(name, &input.title, input.help.as_deref(), wrong);
        Field { choices: &input.choices, optional, secret: input.secret, value, ..of }
    };
    let mut fields: Vec<_> = seen.integration.inputs.iter().map(of_input).collect();
    let prompts = &seen.integration.prompts;
    match way {
        Way::Key => fields.push(Field {
            secret: true,
            ..Field::of("api_key".to_owned(), &prompts.key, prompts.help.as_deref(), wrong)
        }),
        Way::Password => {
            let name = Field::of("username".to_owned(), &prompts.username, None, wrong);
            fields.push(Field { value: form.one("username").to_owned(), ..name });
            let password = Field::of("password".to_owned(), &prompts.password, prompts.help.as_deref(), wrong);
            fields.push(Field { secret: true, optional: true, ..password });
        }
        Way::AccessKey => {
            let id = Field::of("access_key".to_owned(), "Access key id", None, wrong);
            fields.push(Field { value: form.one("access_key").to_owned(), ..id });
            let secret = Field::of("access_secret".to_owned(), "Secret access key", None, wrong);
            fields.push(Field { secret: true, ..secret });
            let session = Field::of("session".to_owned(), "Session token", None, wrong);
            fields.push(Field { secret: true, optional: true, ..session });
        }
        Way::Provider { .. } | Way::Device { .. } | Way::Itself | Way::Login | Way::Nothing => {}
    }
    fields
}

impl<'a> Field<'a> {
    fn of(name: String, title: &'a str, help: Option<&'a str>, wrong: &Wrong) -> Self {
        let help_url = help.filter(|help| help.starts_with("https://") && !help.contains(' '));
        let error = wrong.get(&name).copied();
        Self { name, title, help, help_url, choices: &[], optional: false, secret: false, value: String::new(), error }
    }
}

/// The scopes that a credential was granted, all its tokens together; `None` when nobody said.
pub(super) fn scopes_of(credential: &Credential) -> Option<Vec<String>> {
    let Credential::Tokens(tokens) = credential else { return None };
    let mut known = None;
    for scopes in tokens.0.values().filter_map(|issued| issued.scopes.as_ref()) {
        let all: &mut Vec<String> = known.get_or_insert_with(Vec::new);
        all.extend(scopes.iter().filter(|scope| !all.contains(scope)).cloned().collect::<Vec<_>>());
    }
    known
}
