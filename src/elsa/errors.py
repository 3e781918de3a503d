"""Every error that elsa raises on purpose.

ElsaError
├── ConfigError              a setting is unknown, of the wrong type, or impossible
├── AssetError               a pinned download is missing, broken or not what it should be
├── DataError                the user's rows, columns or labels cannot be used
├── ModelError               the model directory cannot be used
│   ├── UnsupportedModelError    its architecture has no row in the table of families
│   ├── MissingTensorError       a tensor that a segment needs is absent or of another shape
│   └── SplitError               p, o, q do not fit the model
├── CertificateError         a certificate or its key cannot be used
├── AdapterError             adapter tensors do not fit the model they are meant for
├── BehaviourError           what a model makes of the probes cannot be compared
├── WireError                what came over a link cannot be accepted; ends that peer's session only
│   ├── FrameError               bytes that are no message of this protocol
│   ├── CodecError               a packet that its codec refuses
│   ├── LinkError                a link broke and did not come back in time
│   │   ├── SessionError             its other end began anew, or ended this session
│   │   └── UntrustedError           its other end showed a certificate that was revoked
│   └── ProtocolError            a valid message that nobody may send now
├── RunError                 a run directory cannot be used
│   └── CheckpointError          no whole checkpoint, or one of another run
└── Interrupted              the person asked to stop; everything up to the checkpoint is kept

Messages say what was wrong, where, what is allowed and what to do.
"""


class ElsaError(Exception):
    """Base of the tree: catch this to catch everything elsa raises on purpose."""


class ConfigError(ElsaError, ValueError):
    """A setting is unknown, of the wrong type, or impossible together with another."""


class AssetError(ElsaError):
    """A pinned download is missing, broken, or not what its checksum says."""


class DataError(ElsaError, ValueError):
    """The user's rows, columns or labels cannot be used as they are."""


class ModelError(ElsaError, ValueError):
    """The model directory cannot be used as it is."""


class UnsupportedModelError(ModelError):
    """The model's architecture has no row in the table of families."""


class MissingTensorError(ModelError):
    """A tensor that a segment needs is absent from the files, or has another shape."""


class SplitError(ModelError):
    """The numbers of bottom, trunk and top blocks do not fit the model."""


class CertificateError(ElsaError):
    """A certificate or its key cannot be used: absent, expired, foreign, or of someone else."""


class AdapterError(ElsaError, ValueError):
    """Adapter tensors do not fit the model or the peer they are meant for."""


class BehaviourError(ElsaError, ValueError):
    """What a model makes of the probes cannot be compared with what others make of them."""


class WireError(ElsaError):
    """What came over a link cannot be accepted; it ends that peer's session only."""


class FrameError(WireError, ValueError):
    """Bytes that are no message of this protocol."""


class CodecError(WireError, ValueError):
    """A packet that its codec refuses: wrong length, dtype, shape or values."""


class CacheMiss(CodecError):  # noqa: N818 - a normal event, healed by a full send
    """A packet that builds on what its receiver does not hold; to be encoded again, in full."""


class LinkError(WireError):
    """A link broke and did not come back in time, or its session is over at the other end."""


class SessionError(LinkError):
    """The other end does not know this session, or no longer; the next request begins a new one."""


class UntrustedError(LinkError):
    """The other end showed a certificate that this party's list of revoked ones names."""


class ProtocolError(WireError):
    """A valid message that this peer may not send, or may not send now."""


class RunError(ElsaError):
    """A run directory cannot be used: absent, of another version, or in use."""


class CheckpointError(RunError):
    """No whole checkpoint is there, or it belongs to another run."""


class Interrupted(ElsaError):  # noqa: N818 - the person's wish, not a fault
    """The person asked to stop; the last checkpoint is kept and `elsa resume` goes on."""
