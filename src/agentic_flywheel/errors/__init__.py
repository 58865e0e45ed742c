"""Everything that can go wrong, as one tree; foreign exceptions are mapped to it where they appear.

    FlywheelError
    ├── InputError (ValueError)          the caller can mend it
    │   ├── QuestionError                empty or too long
    │   ├── IdError                      a session, user, tenant or turn id that cannot be used
    │   ├── SettingsError                a setting that is unknown or has the wrong type
    │   ├── RequestTooLarge              a body beyond the limit
    │   └── RegistryError                the flow registry: file, line, what was expected
    ├── NotFound (LookupError)
    │   ├── UnknownFlow                  with the nearest names
    │   ├── UnknownSession
    │   ├── UnknownKey
    │   ├── UnknownTurn
    │   ├── UnknownProposal
    │   ├── UnknownApiKey
    │   ├── UnknownAddress               nothing is served there
    │   │   └── UnknownMethod            something is, by other methods
    │   ├── UnknownFaqEntry
    │   ├── UnknownWarmUp
    │   └── NotCached                    only-if-cached, and nothing that may be served
    ├── EditConflict                     somebody else changed it since it was read
    │   └── PreconditionFailed           and If-Match said that nobody should have
    ├── RepeatMismatch                   an Idempotency-Key that stood for another request
    ├── RepeatInProgress                 the request of an Idempotency-Key is still under way
    ├── StoreError                       Redis
    │   ├── StoreUnavailable             unreachable, too slow, or gone
    │   ├── StoreRefused                 wrong password, missing rights
    │   │   └── KeyMissing               the tenant is encrypted, and its key is not here
    │   ├── StoreFull                    OOM, disk full, read-only
    │   ├── StoreMisused                 a value of another type under our key
    │   │   └── SessionTaken             another user began a session of this id at the same moment
    │   ├── StoreDamaged                 a value that is not what was written; counted, never an answer
    │   └── EmbeddedServerError          the embedded server could not be started
    ├── FlowError                        whoever answers
    │   ├── FlowUnavailable              unreachable, or an error that may pass
    │   ├── FlowTimeout                  no answer in the time allowed
    │   ├── FlowRefused                  credentials or origin refused
    │   ├── FlowLimited                  asked too often
    │   ├── FlowMissing                  the service does not know this flow
    │   └── FlowGarbled                  an answer that is empty, cut off or not an answer
    ├── EmbedderError                    whoever gives questions their vectors
    │   ├── EmbedderUnavailable          switched off, not loaded, or its service cannot be reached
    │   ├── EmbedderBusy                 too many questions wait for their vectors
    │   ├── EmbedderRefused              the service refused the credentials
    │   ├── EmbedderGarbled              what came back are no vectors
    │   ├── WeightsMissing               the model is not on this machine, or could not be fetched
    │   └── WeightsDamaged               a file of the model is not the one that it should be
    ├── AccessError                      the service does not let this caller do this
    │   ├── CredentialsMissing           nothing says who calls
    │   ├── CredentialsRefused           a key or token that is unknown, malformed, expired or revoked
    │   ├── CredentialsUnchecked         nobody can say now whether they are right
    │   ├── NotAllowed                   scope, user or tenant of the caller
    │   ├── OriginRefused                a page of an origin that is not on the list
    │   ├── HostRefused                  a name that is not the service's
    │   └── RateLimited                  a key that calls more often than it may
    ├── ServiceFailed                    its processes cannot start, or end again and again
    ├── ServiceBusy                      the service is closing, or has too many tenants at once
    ├── IndexUnusable                    an index of history; it can always be made anew from Redis
    └── ExtraMissing (ImportError)       an optional dependency is not installed

Each carries its facts as attributes. The message says what happened and to what; `suggestions` say what to do
next (three or more that fit the case), `retry_after_seconds` when trying again makes sense (0: pointless before
something is changed), and `error_id` ties a report to the log line.
"""

from agentic_flywheel.errors.access import (
    AccessError,
    CredentialsMissing,
    CredentialsRefused,
    CredentialsUnchecked,
    HostRefused,
    NotAllowed,
    OriginRefused,
    RateLimited,
    RepeatInProgress,
    RepeatMismatch,
    RequestTooLarge,
    ServiceBusy,
    ServiceFailed,
    UnknownAddress,
    UnknownApiKey,
    UnknownMethod,
)
from agentic_flywheel.errors.root import (
    EditConflict,
    ExtraMissing,
    FlywheelError,
    IdError,
    IndexUnusable,
    InputError,
    NotCached,
    NotFound,
    PreconditionFailed,
    QuestionError,
    RegistryError,
    SettingsError,
    UnknownFaqEntry,
    UnknownFlow,
    UnknownKey,
    UnknownProposal,
    UnknownSession,
    UnknownTurn,
    UnknownWarmUp,
)
from agentic_flywheel.errors.services import (
    EmbeddedServerError,
    EmbedderBusy,
    EmbedderError,
    EmbedderGarbled,
    EmbedderRefused,
    EmbedderUnavailable,
    FlowError,
    FlowGarbled,
    FlowLimited,
    FlowMissing,
    FlowRefused,
    FlowTimeout,
    FlowUnavailable,
    KeyMissing,
    SessionTaken,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreMisused,
    StoreRefused,
    StoreUnavailable,
    WeightsDamaged,
    WeightsMissing,
)

__all__ = [
    "AccessError",
    "CredentialsMissing",
    "CredentialsRefused",
    "CredentialsUnchecked",
    "EditConflict",
    "EmbeddedServerError",
    "EmbedderBusy",
    "EmbedderError",
    "EmbedderGarbled",
    "EmbedderRefused",
    "EmbedderUnavailable",
    "ExtraMissing",
    "FlowError",
    "FlowGarbled",
    "FlowLimited",
    "FlowMissing",
    "FlowRefused",
    "FlowTimeout",
    "FlowUnavailable",
    "FlywheelError",
    "HostRefused",
    "IdError",
    "IndexUnusable",
    "InputError",
    "KeyMissing",
    "NotAllowed",
    "NotCached",
    "NotFound",
    "OriginRefused",
    "PreconditionFailed",
    "QuestionError",
    "RateLimited",
    "RegistryError",
    "RepeatInProgress",
    "RepeatMismatch",
    "RequestTooLarge",
    "ServiceBusy",
    "ServiceFailed",
    "SessionTaken",
    "SettingsError",
    "StoreDamaged",
    "StoreError",
    "StoreFull",
    "StoreMisused",
    "StoreRefused",
    "StoreUnavailable",
    "UnknownAddress",
    "UnknownApiKey",
    "UnknownFaqEntry",
    "UnknownFlow",
    "UnknownKey",
    "UnknownMethod",
    "UnknownProposal",
    "UnknownSession",
    "UnknownTurn",
    "UnknownWarmUp",
    "WeightsDamaged",
    "WeightsMissing",
]
