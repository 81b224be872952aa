//! What is wrong with references, in words.

use super::environment::{Environment, FileFault, SecretFault, VariableError};
use super::reference::Fault;
use crate::definition::problem::{Code, Place, Problem};
use crate::definition::suggest::nearest;

/// A problem that has no place yet.
pub(super) struct Trouble {
    code: Code,
    message: String,
    suggestion: Option<String>,
    help: Option<String>,
}

impl Trouble {
    pub(super) fn new(code: Code, message: String) -> Self {
        Self { code, message, suggestion: None, help: None }
    }

    pub(super) fn help(self, help: &str) -> Self {
        Self { help: Some(help.to_owned()), ..self }
    }

    pub(super) fn at(self, place: Place) -> Problem {
        let problem = Problem::error(self.code, place, self.message).suggestion(self.suggestion);
        Problem { help: self.help, ..problem }
    }

    /// A secret has no default: it would be written out in the file.
    pub(super) fn without_default(self) -> Self {
        let is_missing_variable = self.help.as_deref().is_some_and(|help| help.starts_with(SET_IT));
        if is_missing_variable { Self { help: Some(format!("{SET_IT}.")), ..self } } else { self }
    }
}

pub(super) fn missing_secret(path: &str, field: &str, fault: &SecretFault) -> Trouble {
    let mut trouble = Trouble::new(Code::MissingReference, format!("the secret `{path}#{field}` {fault}"));
    match fault {
        SecretFault::Own => {
            let help =
                "No integration file may name what the gateway file takes for itself: its author says where calls go.";
            return Trouble::new(Code::OutOfReach, trouble.message).help(help);
        }
        SecretFault::Outside => {
            let help = "The gateway file lists what they may: `secrets: { vault: { definitions: […] } }`. A path has no empty \
                        part, `.` or `..`.";
            return Trouble::new(Code::OutOfReach, trouble.message).help(help);
        }
        SecretFault::NoStore => {
            trouble.help = Some("Name one in the gateway file: `secrets: { vault: { url: …, auth: … } }`.".to_owned());
        }
        SecretFault::NoSecret => {
            trouble.help = Some("The path is that of the secret below the mount `secrets.vault.mount`.".to_owned());
        }
        SecretFault::NoField(known) => trouble.suggestion = nearest(field, known.iter().map(String::as_str)),
        SecretFault::NotText | SecretFault::Unread(_) => {}
    }
    trouble
}

pub(super) fn missing_file(name: &str, fault: &FileFault) -> Trouble {
    let (code, help) = match fault {
        FileFault::Unread(_) => (Code::MissingReference, "The path is relative to the file that names it."),
        FileFault::Own => (Code::OutOfReach, "No integration file may name it: its author says where calls go."),
        FileFault::Outside => (
            Code::OutOfReach,
            "It must be below the directory of the gateway file or of the definitions, right in `/run/secrets`, or \
             below a directory that the gateway file lists: `secrets: { files: […] }`. Links count by where they lead.",
        ),
    };
    Trouble::new(code, format!("the file `{name}` {fault}")).help(help)
}

const SET_IT: &str = "Set it";

pub(super) fn missing_variable(
    name: &str,
    value: &Result<String, VariableError>,
    environment: &dyn Environment,
) -> Trouble {
    if *value == Err(VariableError::Own) {
        let message = format!("the environment variable `{name}` is the gateway's own");
        let help = "Integration files may not read variables that the gateway file takes secrets from, nor any \
                    `TRUNKLINE_…`: give this one a variable of its own.";
        return Trouble::new(Code::OutOfReach, message).help(help);
    }
    let why = match value {
        Ok(_) => "is empty".to_owned(),
        Err(error) => error.to_string(),
    };
    let names = environment.names();
    Trouble {
        suggestion: nearest(name, names.iter().map(String::as_str)),
        help: Some(format!("{SET_IT}, or write a default: `${{env:{name}:-…}}`.")),
        ..Trouble::new(Code::MissingReference, format!("the environment variable `{name}` {why}"))
    }
}

pub(super) fn broken(fault: &Fault, environment: &dyn Environment) -> Trouble {
    let escape = "For a literal `${` write `$${`.";
    let (message, suggestion, help) = match fault {
        Fault::Unclosed => ("this reference has no closing `}`".to_owned(), None, escape.to_owned()),
        Fault::UnknownSource(source) => (
            format!("`{source}` is no source of values: there are `env`, `file` and `vault`"),
            nearest(source, ["env", "file", "vault"]),
            escape.to_owned(),
        ),
        Fault::BareName(name) => {
            let known = environment.names().iter().any(|known| known == name);
            let suggestion = (known || !name.is_empty()).then(|| format!("${{env:{name}}}"));
            (format!("`${{{name}}}` does not say where its value comes from"), suggestion, escape.to_owned())
        }
        Fault::BadSecret(_) => {
            let help = "Paths have letters, digits and `-_.@:`, between slashes; a field follows a `#`.".to_owned();
            ("this names no field of a secret: expected `${vault:PATH#FIELD}`".to_owned(), None, help)
        }
        Fault::BadName(name) if name.is_empty() => {
            ("this reference names nothing".to_owned(), None, "Write `${env:NAME}` or `${file:PATH}`.".to_owned())
        }
        Fault::BadName(name) => {
            let help = "Names have letters, digits and `_`, and begin with no digit.";
            (format!("`{name}` is not the name of an environment variable"), None, help.to_owned())
        }
    };
    Trouble { suggestion, help: Some(help), ..Trouble::new(Code::BadFormat, message) }
}
