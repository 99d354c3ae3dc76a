//! `astrid:kernel/document`: documents, of whom the capsule acts for.

use astrid_wire::authority::Action;

use super::bindings::astrid::kernel::document::{DocumentError, Host};
use crate::capsule::guest::Guest;
use crate::home::DocumentFault;

impl From<DocumentFault> for DocumentError {
    fn from(fault: DocumentFault) -> Self {
        match fault {
            DocumentFault::TooLarge(limit) => Self::TooLarge(limit),
            DocumentFault::NotText => Self::NotText,
            DocumentFault::Changed => Self::Changed,
            DocumentFault::File(error) => Self::Failed(error.to_string()),
        }
    }
}

impl Host for Guest {
    fn read(&mut self, name: String) -> Result<Option<String>, DocumentError> {
        let host = self.host();
        let permit = host.gate.document(self.subject(), &name);
        let document = permit.map_err(|denied| DocumentError::Denied(self.refused(denied).to_string()))?;
        Ok(host.home.read_document(&self.principal, document.object())?)
    }

    fn replace(&mut self, name: String, was: Option<String>, text: String) -> Result<(), DocumentError> {
        let host = self.host();
        let permit = host.gate.document(self.subject(), &name);
        let document = permit.map_err(|denied| DocumentError::Denied(self.refused(denied).to_string()))?;
        host.home
            .replace_document(&self.principal, document.object(), was.as_deref(), &text)?;
        self.at_once.add(Action::Document);
        Ok(())
    }
}
