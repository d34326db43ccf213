//! The assembly of rooms: builds each part from the foundations and the parts that it needs.

use std::sync::Arc;

use super::{
    Aggregations, Aliases, Appender, ClientEventFormat, Directory, ErasedUsers, FactLoader, Foundations,
    Ingest, IngestLocks, JoinImporter, JoinRules, Memberships, Outliers, ProfilePropagation, PushEvaluation,
    RemoteMemberships, RoomCreation, RoomLimits, RoomNumbers, RoomPreviews, RoomRepository, RoomUpgrade,
    Rooms, ServerVisibility, SettingsCarryOver, StateReader, StateSender, Summaries, TimelineGaps,
    TimelineReader, Transactions, Visibility, ingest, room_locks,
};
use crate::fair_semaphore::FairSemaphore;

impl Rooms {
    /// The parts of rooms, put together. Nothing is read from the database yet.
    #[must_use]
    pub fn new(on: &Foundations, limits: RoomLimits) -> Self {
        let repository = on.repository();
        let erased = on.erased();
        let visibility = on.visibility(&repository, &erased);
        let server_visibility = on.server_visibility(&repository, &erased);
        let gaps = on.gaps();
        let state_reader = on.state_reader(&repository, &visibility);
        let aggregations = on.aggregations(&visibility);
        let client_events = on.client_events(&repository, &visibility, &aggregations);
        let timeline = on.timeline(&repository, &visibility, &gaps, &state_reader);
        let push_evaluation = on.push_evaluation(&repository);
        let transactions = on.transactions();
        let appender = on.appender(&repository, &push_evaluation, &transactions, limits);
        let facts = on.facts(&repository, limits);
        let ingest_locks = on.ingest_locks();
        let ingest = on.ingest(&repository, &push_evaluation, &gaps, &facts);
        let numbers = on.numbers(&repository);
        let outliers = on.outliers(&facts);
        let join_importer = on.join_importer(&repository, &numbers, &facts);
        let join_rules = on.join_rules(&repository);
        let settings_carry_over = on.settings_carry_over(&repository);
        let memberships = on.memberships(&repository, &appender, &join_rules, &settings_carry_over);
        let state_sender = on.state_sender(&repository, &appender, &memberships);
        let remote_memberships = on.remote_memberships(&numbers, &appender);
        let profile_propagation = on.profile_propagation(&repository, &memberships);
        let creation = on.creation(&appender, &memberships);
        let aliases = on.aliases(&repository, &appender);
        let summaries = on.summaries(&repository);
        let directory = on.directory(&repository, &summaries);
        let upgrade = on.upgrade(
            &repository,
            &appender,
            &creation,
            &directory,
            &settings_carry_over,
        );
        let previews = on.previews(&repository, &summaries, &join_rules, &server_visibility);
        Self {
            repository,
            erased,
            visibility,
            server_visibility,
            gaps,
            state_reader,
            aggregations,
            client_events,
            timeline,
            transactions,
            appender,
            ingest_locks,
            ingest,
            numbers,
            outliers,
            join_importer,
            join_rules,
            settings_carry_over,
            memberships,
            state_sender,
            remote_memberships,
            profile_propagation,
            creation,
            aliases,
            summaries,
            directory,
            upgrade,
            previews,
        }
    }
}

impl Foundations {
    fn repository(&self) -> Arc<RoomRepository> {
        Arc::new(RoomRepository::new(
            Arc::clone(&self.store),
            Arc::clone(&self.cache),
        ))
    }

    fn erased(&self) -> Arc<ErasedUsers> {
        Arc::new(ErasedUsers::new(Arc::clone(&self.store)))
    }

    fn visibility(&self, repository: &Arc<RoomRepository>, erased: &Arc<ErasedUsers>) -> Arc<Visibility> {
        Arc::new(Visibility {
            store: Arc::clone(&self.store),
            repository: Arc::clone(repository),
            erased: Arc::clone(erased),
        })
    }

    fn server_visibility(
        &self,
        repository: &Arc<RoomRepository>,
        erased: &Arc<ErasedUsers>,
    ) -> Arc<ServerVisibility> {
        Arc::new(ServerVisibility {
            store: Arc::clone(&self.store),
            repository: Arc::clone(repository),
            erased: Arc::clone(erased),
        })
    }

    fn gaps(&self) -> Arc<TimelineGaps> {
        Arc::new(TimelineGaps {
            store: Arc::clone(&self.store),
        })
    }

    fn state_reader(
        &self,
        repository: &Arc<RoomRepository>,
        visibility: &Arc<Visibility>,
    ) -> Arc<StateReader> {
        Arc::new(StateReader {
            store: Arc::clone(&self.store),
            repository: Arc::clone(repository),
            visibility: Arc::clone(visibility),
        })
    }

    fn aggregations(&self, visibility: &Arc<Visibility>) -> Arc<Aggregations> {
        Arc::new(Aggregations {
            store: Arc::clone(&self.store),
            visibility: Arc::clone(visibility),
        })
    }

    fn client_events(
        &self,
        repository: &Arc<RoomRepository>,
        visibility: &Arc<Visibility>,
        aggregations: &Arc<Aggregations>,
    ) -> ClientEventFormat {
        ClientEventFormat {
            clock: Arc::clone(&self.clock),
            store: Arc::clone(&self.store),
            repository: Arc::clone(repository),
            visibility: Arc::clone(visibility),
            aggregations: Arc::clone(aggregations),
        }
    }

    fn timeline(
        &self,
        repository: &Arc<RoomRepository>,
        visibility: &Arc<Visibility>,
        gaps: &Arc<TimelineGaps>,
        state_reader: &Arc<StateReader>,
    ) -> TimelineReader {
        TimelineReader {
            store: Arc::clone(&self.store),
            repository: Arc::clone(repository),
            visibility: Arc::clone(visibility),
            gaps: Arc::clone(gaps),
            state_reader: Arc::clone(state_reader),
        }
    }

    fn push_evaluation(&self, repository: &Arc<RoomRepository>) -> Arc<PushEvaluation> {
        Arc::new(PushEvaluation {
            identity: Arc::clone(&self.identity),
            push: Arc::clone(&self.push),
            repository: Arc::clone(repository),
        })
    }

    fn transactions(&self) -> Arc<Transactions> {
        Arc::new(Transactions::new(
            Arc::clone(&self.clock),
            Arc::clone(&self.store),
        ))
    }

    fn appender(
        &self,
        repository: &Arc<RoomRepository>,
        push_evaluation: &Arc<PushEvaluation>,
        transactions: &Arc<Transactions>,
        limits: RoomLimits,
    ) -> Arc<Appender> {
        Arc::new(Appender {
            identity: Arc::clone(&self.identity),
            clock: Arc::clone(&self.clock),
            store: Arc::clone(&self.store),
            repository: Arc::clone(repository),
            push_evaluation: Arc::clone(push_evaluation),
            transactions: Arc::clone(transactions),
            message_characters: limits.message_characters,
        })
    }

    fn facts(&self, repository: &Arc<RoomRepository>, limits: RoomLimits) -> Arc<FactLoader> {
        Arc::new(FactLoader {
            store: Arc::clone(&self.store),
            repository: Arc::clone(repository),
            verdict_events: limits.verdict_events,
        })
    }

    fn ingest_locks(&self) -> IngestLocks {
        IngestLocks {
            locks: room_locks::RoomLocks::default(),
        }
    }

    fn ingest(
        &self,
        repository: &Arc<RoomRepository>,
        push_evaluation: &Arc<PushEvaluation>,
        gaps: &Arc<TimelineGaps>,
        facts: &Arc<FactLoader>,
    ) -> Ingest {
        Ingest {
            identity: Arc::clone(&self.identity),
            store: Arc::clone(&self.store),
            repository: Arc::clone(repository),
            push_evaluation: Arc::clone(push_evaluation),
            gaps: Arc::clone(gaps),
            facts: Arc::clone(facts),
            resolving: FairSemaphore::new(ingest::at_once(), ingest::OF_ONE, ingest::MOST_WAITING),
        }
    }

    fn numbers(&self, repository: &Arc<RoomRepository>) -> Arc<RoomNumbers> {
        Arc::new(RoomNumbers {
            clock: Arc::clone(&self.clock),
            store: Arc::clone(&self.store),
            repository: Arc::clone(repository),
        })
    }

    fn outliers(&self, facts: &Arc<FactLoader>) -> Outliers {
        Outliers {
            store: Arc::clone(&self.store),
            facts: Arc::clone(facts),
        }
    }

    fn join_importer(
        &self,
        repository: &Arc<RoomRepository>,
        numbers: &Arc<RoomNumbers>,
        facts: &Arc<FactLoader>,
    ) -> JoinImporter {
        JoinImporter {
            identity: Arc::clone(&self.identity),
            store: Arc::clone(&self.store),
            repository: Arc::clone(repository),
            numbers: Arc::clone(numbers),
            facts: Arc::clone(facts),
        }
    }

    fn join_rules(&self, repository: &Arc<RoomRepository>) -> Arc<JoinRules> {
        Arc::new(JoinRules {
            identity: Arc::clone(&self.identity),
            repository: Arc::clone(repository),
        })
    }

    fn settings_carry_over(&self, repository: &Arc<RoomRepository>) -> Arc<SettingsCarryOver> {
        Arc::new(SettingsCarryOver {
            store: Arc::clone(&self.store),
            repository: Arc::clone(repository),
            push: Arc::clone(&self.push),
        })
    }

    fn memberships(
        &self,
        repository: &Arc<RoomRepository>,
        appender: &Arc<Appender>,
        join_rules: &Arc<JoinRules>,
        settings_carry_over: &Arc<SettingsCarryOver>,
    ) -> Arc<Memberships> {
        Arc::new(Memberships {
            identity: Arc::clone(&self.identity),
            store: Arc::clone(&self.store),
            repository: Arc::clone(repository),
            appender: Arc::clone(appender),
            join_rules: Arc::clone(join_rules),
            settings_carry_over: Arc::clone(settings_carry_over),
            unknown_names: Arc::clone(&self.unknown_names),
        })
    }

    fn state_sender(
        &self,
        repository: &Arc<RoomRepository>,
        appender: &Arc<Appender>,
        memberships: &Arc<Memberships>,
    ) -> StateSender {
        StateSender {
            repository: Arc::clone(repository),
            appender: Arc::clone(appender),
            memberships: Arc::clone(memberships),
        }
    }

    fn remote_memberships(&self, numbers: &Arc<RoomNumbers>, appender: &Arc<Appender>) -> RemoteMemberships {
        RemoteMemberships {
            identity: Arc::clone(&self.identity),
            clock: Arc::clone(&self.clock),
            store: Arc::clone(&self.store),
            numbers: Arc::clone(numbers),
            appender: Arc::clone(appender),
        }
    }

    fn profile_propagation(
        &self,
        repository: &Arc<RoomRepository>,
        memberships: &Arc<Memberships>,
    ) -> ProfilePropagation {
        ProfilePropagation {
            store: Arc::clone(&self.store),
            repository: Arc::clone(repository),
            memberships: Arc::clone(memberships),
        }
    }

    fn creation(&self, appender: &Arc<Appender>, memberships: &Arc<Memberships>) -> Arc<RoomCreation> {
        Arc::new(RoomCreation {
            identity: Arc::clone(&self.identity),
            clock: Arc::clone(&self.clock),
            store: Arc::clone(&self.store),
            appender: Arc::clone(appender),
            memberships: Arc::clone(memberships),
            services: Arc::clone(&self.services),
        })
    }

    fn aliases(&self, repository: &Arc<RoomRepository>, appender: &Arc<Appender>) -> Aliases {
        Aliases {
            identity: Arc::clone(&self.identity),
            store: Arc::clone(&self.store),
            repository: Arc::clone(repository),
            appender: Arc::clone(appender),
            services: Arc::clone(&self.services),
            unknown_names: Arc::clone(&self.unknown_names),
        }
    }

    fn summaries(&self, repository: &Arc<RoomRepository>) -> Arc<Summaries> {
        Arc::new(Summaries {
            repository: Arc::clone(repository),
        })
    }

    fn directory(&self, repository: &Arc<RoomRepository>, summaries: &Arc<Summaries>) -> Arc<Directory> {
        Arc::new(Directory {
            store: Arc::clone(&self.store),
            repository: Arc::clone(repository),
            summaries: Arc::clone(summaries),
        })
    }

    fn upgrade(
        &self,
        repository: &Arc<RoomRepository>,
        appender: &Arc<Appender>,
        creation: &Arc<RoomCreation>,
        directory: &Arc<Directory>,
        settings_carry_over: &Arc<SettingsCarryOver>,
    ) -> RoomUpgrade {
        RoomUpgrade {
            store: Arc::clone(&self.store),
            repository: Arc::clone(repository),
            appender: Arc::clone(appender),
            creation: Arc::clone(creation),
            directory: Arc::clone(directory),
            settings_carry_over: Arc::clone(settings_carry_over),
        }
    }

    fn previews(
        &self,
        repository: &Arc<RoomRepository>,
        summaries: &Arc<Summaries>,
        join_rules: &Arc<JoinRules>,
        server_visibility: &Arc<ServerVisibility>,
    ) -> RoomPreviews {
        RoomPreviews {
            store: Arc::clone(&self.store),
            repository: Arc::clone(repository),
            summaries: Arc::clone(summaries),
            join_rules: Arc::clone(join_rules),
            server_visibility: Arc::clone(server_visibility),
        }
    }
}
