//! Budgets in time: how often a thing may be done, each as one row.

use super::By;

/// A rate with a burst.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// How many a second in the long run.
    pub per_second: f64,
    /// How many at once after a quiet time.
    pub burst: u32,
}

/// Writes the rows down once: as [`Budget`], and as [`Rates`] with their defaults.
macro_rules! rates {
    ($($(#[doc = $bounds:literal])+ $budget:ident, $key:ident, $by:ident, $per_second:literal, $burst:literal;)+) => {
        /// What may be done so and so often. Beyond it the one who does it is refused
        /// ([`Refusal::LimitExceeded`](crate::refusal::Refusal::LimitExceeded)): 429 `M_LIMIT_EXCEEDED` with `Retry-After`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Budget {
            $($(#[doc = $bounds])+ $budget,)+
        }

        impl Budget {
            /// All of them, in the order of the page.
            pub const ALL: [Self; [$(Self::$budget),+].len()] = [$(Self::$budget),+];

            /// Its key in the configuration, below `rates`.
            #[must_use]
            pub fn key(self) -> &'static str {
                match self { $(Self::$budget => stringify!($key),)+ }
            }

            /// Whose it is.
            #[must_use]
            pub fn by(self) -> By {
                match self { $(Self::$budget => By::$by,)+ }
            }

            /// What it bounds.
            #[must_use]
            pub fn bounds(self) -> &'static str {
                match self { $(Self::$budget => concat!($($bounds),+).trim_ascii(),)+ }
            }
        }

        /// How often each thing may be done.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Rates {
            $($(#[doc = $bounds])+ pub $key: Rate,)+
        }

        impl Default for Rates {
            fn default() -> Self {
                Self { $($key: Rate { per_second: $per_second, burst: $burst },)+ }
            }
        }

        impl Rates {
            /// The rate of a budget.
            #[must_use]
            pub fn of(&self, budget: Budget) -> Rate {
                match budget { $(Budget::$budget => self.$key,)+ }
            }

            /// The same, to be changed.
            pub fn of_mut(&mut self, budget: Budget) -> &mut Rate {
                match budget { $(Budget::$budget => &mut self.$key,)+ }
            }
        }
    };
}

rates! {
    /// Attempts to log in from one address, and questions whether a name is free
    LoginsFromAddress, login_per_address, Address, 0.5, 20;
    /// Attempts to log in to one account from one address
    LoginsToAccountFromAddress, login_per_account_and_address, AccountAndAddress, 0.2, 10;
    /// Attempts to log in to one account from all addresses together at which none of its devices was last seen
    LoginsToAccount, login_per_account, Account, 0.1, 100;
    /// Proofs of the password by one device that is logged in
    ProofsOfDevice, proofs_per_device, Device, 0.2, 10;
    /// Registrations from one address, and questions whether a registration token is good
    RegistrationsFromAddress, registration_per_address, Address, 0.1, 10;
    /// Requests to register from one address, with a proof or without
    RegistrationRequests, registration_requests_per_address, Address, 0.5, 30;
    /// OAuth 2.0 clients registered from one address
    ClientRegistrations, client_registrations_per_address, Address, 0.05, 50;
    /// Forms of this server's own pages sent from one address
    PageForms, page_forms_per_address, Address, 1.0, 60;
    /// Devices without a browser that ask from one address to be signed in
    DeviceGrants, device_grants_per_address, Address, 0.1, 20;
    /// Codes of such devices that one user tries
    UserCodes, user_codes_per_user, Account, 0.1, 20;
    /// Renewals of tokens from one address, and whatever else OAuth 2.0 clients do with codes and tokens
    RefreshesFromAddress, refreshes_per_address, Address, 5.0, 200;
    /// Events sent by one user, by whatever way
    Events, messages_per_user, Account, 10.0, 100;
    /// Rooms made by one user, new ones and those that replace others
    Rooms, rooms_per_user, Account, 0.5, 20;
    /// Joins and knocks by one user
    Joins, joins_per_user, Account, 1.0, 20;
    /// Invitations by one user
    Invites, invites_per_user, Account, 1.0, 50;
    /// Changes of one user's profile, each an event in every room of the user
    ProfileChanges, profile_changes_per_user, Account, 0.5, 30;
    /// Changes by one user of aliases and of what stands in the room directory
    DirectoryChanges, directory_changes_per_user, Account, 0.5, 30;
    /// Receipts and read markers of one user
    Receipts, receipts_per_user, Account, 10.0, 200;
    /// Notices of one user's typing
    Typing, typing_per_user, Account, 5.0, 100;
    /// Changes of one user's presence, and heartbeats
    Presence, presence_per_user, Account, 2.0, 50;
    /// Acknowledgements over one user's WebSockets
    Acknowledgements, acknowledgements_per_user, Account, 100.0, 2000;
    /// Requests of sliding sync by one user
    SlidingSyncs, sliding_syncs_per_user, Account, 20.0, 500;
    /// Requests of one user to send messages to devices
    ToDevice, to_device_per_user, Account, 20.0, 1000;
    /// Uploads of, questions for and claims of keys by one user
    Keys, keys_per_user, Account, 10.0, 200;
    /// Changes of one user's account data, tags, push rules, filters and names of devices, and rooms forgotten
    Settings, settings_per_user, Account, 5.0, 200;
    /// Changes of one account: password, closing, devices removed, login tokens, logging out
    AccountChanges, account_changes_per_user, Account, 0.5, 30;
    /// Uploads by one user
    Uploads, media_uploads_per_user, Account, 2.0, 50;
    /// Reports by one user
    Reports, reports_per_user, Account, 0.2, 20;
    /// Pings that one application service asks for
    Pings, pings_per_service, Account, 0.5, 10;
    /// Searches by one user, of messages, of the room directory or of the user directory
    Searches, searches_per_user, Account, 2.0, 20;
}
