"""Every failure a user can cause or meet, as one tree.

::

    DsollamaError                    exit  code (stable, for scripts and --json)
    ├── UsageError                      2
    │   ├── UnknownModelError              unknown-model
    │   ├── UnknownQuantError              unknown-quant
    │   ├── AmbiguousQuantError            ambiguous-quant
    │   ├── InvalidNameError               invalid-name
    │   ├── NameTakenError                 name-taken
    │   ├── UnknownVariantError            unknown-variant
    │   ├── MalformedCatalogError          malformed-catalog
    │   ├── UnusableTokenError             unusable-token
    │   ├── MalformedModelfileError        malformed-modelfile
    │   └── NotInstalledError              not-installed
    ├── HubError                        3
    │   ├── HubUnreachableError            hub-unreachable
    │   ├── HubOfflineError                hub-offline
    │   ├── AccessDeniedError              access-denied
    │   ├── RepositoryNotFoundError        repository-not-found
    │   ├── RevisionNotFoundError          revision-not-found
    │   ├── NoGgufError                    no-gguf
    │   ├── CertificateError               certificate
    │   ├── UnsafeRedirectError            unsafe-redirect
    │   └── TransferError                  transfer-failed
    ├── ShardError                      4
    │   ├── MissingShardError              missing-shard
    │   ├── NotGgufError                   not-gguf
    │   ├── MalformedGgufError             malformed-gguf
    │   ├── ForeignShardError              foreign-shard
    │   ├── CorruptShardError              corrupt-shard
    │   └── UnreadableShardError           unreadable-shard
    ├── StoreError                      5
    │   ├── NotEnoughDiskError             not-enough-disk
    │   ├── StoreNotWritableError          store-not-writable
    │   ├── StoreBusyError                 store-busy
    │   ├── NoLocksError                   no-locks
    │   ├── OversizedStoreError            oversized-store
    │   ├── BrokenManifestError            broken-manifest
    │   └── DamagedBlobError               damaged-blob
    ├── EngineError                     6
    │   ├── OllamaUnreachableError         ollama-unreachable
    │   ├── OllamaSilentError              ollama-silent
    │   ├── OllamaRefusedError             ollama-refused
    │   ├── OllamaTooOldError              ollama-too-old
    │   ├── LlamaServerUnreachableError    llama-server-unreachable
    │   ├── LlamaServerSilentError         llama-server-silent
    │   ├── LlamaServerRefusedError        llama-server-refused
    │   ├── ProgramMissingError            program-missing
    │   ├── ProgramFailedError             program-failed
    │   └── WrongMergeError                wrong-merge
    ├── LimitError                      8  limit
    ├── OutputError                     9  output
    └── InterruptedByUserError        130  interrupted

An error is one sentence (``str(error)``), a hint that fixes it, a ``code`` and an ``exit_code``.
Foreign exceptions are turned into these where they enter (``hub.client``, ``ollama.client``,
``store``, ``gguf.split_program``); ``cli.app`` alone turns these into exits.

All are imported from here; the root and the engines' errors lie in modules of their own.
"""

from __future__ import annotations

# Unsorted: ruff would write a statement for each name.
# isort: off
from dsollama.errors.engines import (
    EngineError as EngineError,
    LlamaServerRefusedError as LlamaServerRefusedError,
    LlamaServerSilentError as LlamaServerSilentError,
    LlamaServerUnreachableError as LlamaServerUnreachableError,
    OllamaRefusedError as OllamaRefusedError,
    OllamaSilentError as OllamaSilentError,
    OllamaTooOldError as OllamaTooOldError,
    OllamaUnreachableError as OllamaUnreachableError,
    ProgramFailedError as ProgramFailedError,
    ProgramMissingError as ProgramMissingError,
    WrongMergeError as WrongMergeError,
)
from dsollama.errors.root import DsollamaError as DsollamaError, causes as causes

# isort: on


class UsageError(DsollamaError):
    """What was asked for does not exist or cannot be read."""

    code = "usage"
    exit_code = 2


class UnknownModelError(UsageError):
    """No model of that name in the catalog, and not an hf.co address."""

    code = "unknown-model"


class UnknownQuantError(UsageError):
    """The repository holds no such quant."""

    code = "unknown-quant"


class AmbiguousQuantError(UsageError):
    """More than one shard set of the repository answers to the quant."""

    code = "ambiguous-quant"


class InvalidNameError(UsageError):
    """Ollama would not accept the model name."""

    code = "invalid-name"


class NameTakenError(UsageError):
    """The name belongs to another model, which the install would replace."""

    code = "name-taken"


class UnknownVariantError(UsageError):
    """The model has no such template variant."""

    code = "unknown-variant"


class MalformedCatalogError(UsageError):
    """The catalog that belongs to dsollama cannot be used."""

    code = "malformed-catalog"
    usual_hint = "Install dsollama again; in a checkout, look at src/dsollama/catalog/models.toml."


class UnusableTokenError(UsageError):
    """What stands where a token should is none; it is never shown."""

    code = "unusable-token"
    usual_hint = (
        "Set HF_TOKEN again, or write the file again with `hf auth login`; "
        "HF_HUB_DISABLE_IMPLICIT_TOKEN=1 goes without a token."
    )


class MalformedModelfileError(UsageError):
    """A Modelfile that Ollama would not take."""

    code = "malformed-modelfile"


class NotInstalledError(UsageError):
    """The store holds no model of that name."""

    code = "not-installed"


class HubError(DsollamaError):
    """The Hugging Face Hub could not give what was needed."""

    code = "hub"
    exit_code = 3


class HubUnreachableError(HubError):
    """No connection to the Hub."""

    code = "hub-unreachable"


class HubOfflineError(HubError):
    """HF_HUB_OFFLINE forbids the network."""

    code = "hub-offline"


class AccessDeniedError(HubError):
    """A gated or private repository, and no token that opens it."""

    code = "access-denied"


class RepositoryNotFoundError(HubError):
    """The Hub knows no such repository, or hides a private one."""

    code = "repository-not-found"


class RevisionNotFoundError(HubError):
    """The repository has no such branch, tag or commit."""

    code = "revision-not-found"


class NoGgufError(HubError):
    """The repository holds no GGUF file."""

    code = "no-gguf"


class CertificateError(HubError):
    """A server's certificate is not trusted: the Hub's, its CDN's, or an Ollama's by https."""

    code = "certificate"
    usual_hint = (
        "If a company's proxy or a mirror has certificates of its own, let SSL_CERT_FILE name the "
        "file (PEM) that has them. If it is said to have expired, or not to be valid yet, look at "
        "this machine's clock."
    )


class UnsafeRedirectError(HubError):
    """A redirect from https to http, or to what no two clients read alike; it is not followed."""

    code = "unsafe-redirect"
    usual_hint = "A proxy or a login page may stand between this machine and the Hub."

    @classmethod
    def of(cls, what: str, reason: ValueError) -> UnsafeRedirectError:
        """Return the error for a redirect of `what` that `addresses.redirected` refuses."""
        return cls(f"The server redirects {what} to an address that is not safe: {reason}.")


class TransferError(HubError):
    """A download failed and went on failing after bounded retries."""

    code = "transfer-failed"


class ShardError(DsollamaError):
    """The shards are not what they should be."""

    code = "shard"
    exit_code = 4
    usual_hint = (
        "The upload is damaged, or not finished: try again later, another quant or --revision, "
        "or tell its uploader."
    )


class MissingShardError(ShardError):
    """A shard of the set is not in the repository."""

    code = "missing-shard"


class NotGgufError(ShardError):
    """The file is a Git LFS pointer, an HTML page or something else."""

    code = "not-gguf"


class MalformedGgufError(ShardError):
    """The file calls itself GGUF and its header cannot be trusted."""

    code = "malformed-gguf"


class ForeignShardError(ShardError):
    """A shard that belongs to another set or place."""

    code = "foreign-shard"


class CorruptShardError(ShardError):
    """The bytes do not have the digest that the Hub published."""

    code = "corrupt-shard"


class UnreadableShardError(ShardError):
    """A file of this machine that was to serve as a shard cannot be read."""

    code = "unreadable-shard"


class StoreError(DsollamaError):
    """Ollama's store cannot take the model."""

    code = "store"
    exit_code = 5


class NotEnoughDiskError(StoreError):
    """The store's filesystem has less room than the model needs."""

    code = "not-enough-disk"


class StoreNotWritableError(StoreError):
    """The store, or a folder in it, refuses to be written."""

    code = "store-not-writable"


class StoreBusyError(StoreError):
    """Another dsollama is at work on the same thing in the same store."""

    code = "store-busy"


class NoLocksError(StoreError):
    """The store's file system has no locks, so nothing is changed there."""

    code = "no-locks"
    usual_hint = (
        "Two dsollama at once could spoil each other's work there. Put the store on a local disk, "
        "mount its file system with locks (Lustre: `-o flock`; NFS: without `nolock`), or let "
        "Ollama write it: `dsollama install --via api`."
    )


class OversizedStoreError(StoreError):
    """The store holds more than any real one, and looking at it all would never end."""

    code = "oversized-store"
    usual_hint = "Give --store / OLLAMA_MODELS the folder that holds `blobs` and `manifests`."


class BrokenManifestError(StoreError):
    """A manifest or one of its small layers cannot be read."""

    code = "broken-manifest"
    usual_hint = "`dsollama remove` the model and install it again; its weights are taken over."


class DamagedBlobError(StoreError):
    """Weights that the store has do not have the bytes that their name says."""

    code = "damaged-blob"


class LimitError(DsollamaError):
    """A limit of this process: memory, threads or open files."""

    code = "limit"
    exit_code = 8


class OutputError(DsollamaError):
    """Stdout refuses what is printed: its disk is full, or fails."""

    code = "output"
    exit_code = 9
    usual_hint = "Let it lead to somewhere else; what was installed by then stays."


class InterruptedByUserError(DsollamaError):
    """Ctrl-C; what was verified stays usable."""

    code = "interrupted"
    exit_code = 130
