//! What a request says: names and values, as forms and queries have them.

use super::OAuthError;

/// Most parameters of a request.
const PARAMETERS: usize = 64;

/// The parameters of a request, each there once (RFC 6749, section 3.1).
#[derive(Clone, Debug, Default)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads parameters that are encoded as in a form.
    ///
    /// # Errors
    /// When there are too many, one is there twice, or one holds a NUL character.
    pub fn read(text: &[u8]) -> Result<Self, OAuthError> {
        let mut all: Vec<(String, String)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(text) {
            if all.len() == PARAMETERS {
                return Err(OAuthError::invalid_request("there are too many parameters"));
            }
            if name.contains('\0') || value.contains('\0') {
                return Err(OAuthError::invalid_request("a parameter holds a NUL character"));
            }
            if all.iter().any(|(known, _)| *known == name) {
                return Err(OAuthError::invalid_request("a parameter is there twice"));
            }
            all.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(all))
    }

    /// A parameter. One without a value is as good as none.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// A parameter that must be there.
    ///
    /// # Errors
    /// When it is not.
    pub fn require(&self, name: &str) -> Result<&str, OAuthError> {
        let missing = || OAuthError::invalid_request(format!("{name} is missing"));
        self.get(name).ok_or_else(missing)
    }

    /// The same with one parameter more or other, or without it, encoded as in a query.
    #[must_use]
    pub fn with(&self, name: &str, value: Option<&str>) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(self.0.iter().filter(|(known, _)| known != name));
        if let Some(value) = value {
            query.append_pair(name, value);
        }
        query.finish()
    }
}
