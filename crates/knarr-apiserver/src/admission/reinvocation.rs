use knarr_api::Object;

use super::Request;

/// What a plug-in remembers between the rounds of one request.
#[derive(Default)]
pub(super) struct Memory {
    /// The object as the first round left it.
    output: Option<Object>,
    /// Its members that are to be asked again if another changes the object after them.
    invoked: Vec<String>,
    again: Vec<String>,
}

impl Memory {
    /// A round begins: what others have changed since the last is a reason to ask again.
    pub fn begin(&mut self, request: &Request) {
        if request.reinvocation.second_round && self.output != request.object {
            self.require_again();
        }
    }

    pub fn end(&mut self, request: &Request) {
        let nothing_to_repeat = self.invoked.is_empty() && self.again.is_empty();
        if !request.reinvocation.second_round && !nothing_to_repeat {
            self.output = request.object.clone();
        }
    }

    /// Whether a member is asked in this round.
    pub fn asks(&self, request: &Request, id: &str) -> bool {
        !request.reinvocation.second_round || self.again.iter().any(|asked| asked == id)
    }

    /// A member has seen the object.
    pub fn note(&mut self, id: &str) {
        self.invoked.push(id.to_string());
    }

    /// The object has changed since those before saw it.
    pub fn require_again(&mut self) {
        self.again.append(&mut self.invoked);
    }
}
