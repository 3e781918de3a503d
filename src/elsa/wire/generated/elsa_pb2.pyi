from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Envelope(_message.Message):
    __slots__ = ("protocol", "ready", "local_plan", "activations", "gradients", "update", "accepted", "refusal", "round_order", "edge_update", "score", "evaluation_order", "edge_scores", "resend", "register", "welcome", "next", "task", "behaviours", "verdicts", "labelled_activations", "ping", "clock", "roll_call", "presence", "payload")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    LOCAL_PLAN_FIELD_NUMBER: _ClassVar[int]
    ACTIVATIONS_FIELD_NUMBER: _ClassVar[int]
    GRADIENTS_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    ROUND_ORDER_FIELD_NUMBER: _ClassVar[int]
    EDGE_UPDATE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_ORDER_FIELD_NUMBER: _ClassVar[int]
    EDGE_SCORES_FIELD_NUMBER: _ClassVar[int]
    RESEND_FIELD_NUMBER: _ClassVar[int]
    REGISTER_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    BEHAVIOURS_FIELD_NUMBER: _ClassVar[int]
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    LABELLED_ACTIVATIONS_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    CLOCK_FIELD_NUMBER: _ClassVar[int]
    ROLL_CALL_FIELD_NUMBER: _ClassVar[int]
    PRESENCE_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    ready: Ready
    local_plan: LocalPlan
    activations: Activations
    gradients: Gradients
    update: Update
    accepted: Accepted
    refusal: Refusal
    round_order: RoundOrder
    edge_update: EdgeUpdate
    score: Score
    evaluation_order: EvaluationOrder
    edge_scores: EdgeScores
    resend: Resend
    register: Register
    welcome: Welcome
    next: Next
    task: Task
    behaviours: Behaviours
    verdicts: Verdicts
    labelled_activations: LabelledActivations
    ping: Ping
    clock: Clock
    roll_call: RollCall
    presence: Presence
    payload: bytes
    def __init__(self, protocol: _Optional[int] = ..., ready: _Optional[_Union[Ready, _Mapping]] = ..., local_plan: _Optional[_Union[LocalPlan, _Mapping]] = ..., activations: _Optional[_Union[Activations, _Mapping]] = ..., gradients: _Optional[_Union[Gradients, _Mapping]] = ..., update: _Optional[_Union[Update, _Mapping]] = ..., accepted: _Optional[_Union[Accepted, _Mapping]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ..., round_order: _Optional[_Union[RoundOrder, _Mapping]] = ..., edge_update: _Optional[_Union[EdgeUpdate, _Mapping]] = ..., score: _Optional[_Union[Score, _Mapping]] = ..., evaluation_order: _Optional[_Union[EvaluationOrder, _Mapping]] = ..., edge_scores: _Optional[_Union[EdgeScores, _Mapping]] = ..., resend: _Optional[_Union[Resend, _Mapping]] = ..., register: _Optional[_Union[Register, _Mapping]] = ..., welcome: _Optional[_Union[Welcome, _Mapping]] = ..., next: _Optional[_Union[Next, _Mapping]] = ..., task: _Optional[_Union[Task, _Mapping]] = ..., behaviours: _Optional[_Union[Behaviours, _Mapping]] = ..., verdicts: _Optional[_Union[Verdicts, _Mapping]] = ..., labelled_activations: _Optional[_Union[LabelledActivations, _Mapping]] = ..., ping: _Optional[_Union[Ping, _Mapping]] = ..., clock: _Optional[_Union[Clock, _Mapping]] = ..., roll_call: _Optional[_Union[RollCall, _Mapping]] = ..., presence: _Optional[_Union[Presence, _Mapping]] = ..., payload: _Optional[bytes] = ...) -> None: ...

class Packet(_message.Message):
    __slots__ = ("codec", "dtype", "shape")
    CODEC_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    codec: str
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, codec: _Optional[str] = ..., dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("name", "dtype", "shape", "values")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    values: bytes
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., values: _Optional[bytes] = ...) -> None: ...

class Ready(_message.Message):
    __slots__ = ("round", "edge_round", "bottom", "top", "frozen", "reach", "rank", "head", "labelled")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    EDGE_ROUND_FIELD_NUMBER: _ClassVar[int]
    BOTTOM_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    FROZEN_FIELD_NUMBER: _ClassVar[int]
    REACH_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    LABELLED_FIELD_NUMBER: _ClassVar[int]
    round: int
    edge_round: int
    bottom: int
    top: int
    frozen: bool
    reach: str
    rank: int
    head: str
    labelled: bool
    def __init__(self, round: _Optional[int] = ..., edge_round: _Optional[int] = ..., bottom: _Optional[int] = ..., top: _Optional[int] = ..., frozen: _Optional[bool] = ..., reach: _Optional[str] = ..., rank: _Optional[int] = ..., head: _Optional[str] = ..., labelled: _Optional[bool] = ...) -> None: ...

class LocalPlan(_message.Message):
    __slots__ = ("round", "edge_round", "local_steps", "seed", "adapters", "token")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    EDGE_ROUND_FIELD_NUMBER: _ClassVar[int]
    LOCAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    round: int
    edge_round: int
    local_steps: int
    seed: int
    adapters: _containers.RepeatedCompositeFieldContainer[Tensor]
    token: str
    def __init__(self, round: _Optional[int] = ..., edge_round: _Optional[int] = ..., local_steps: _Optional[int] = ..., seed: _Optional[int] = ..., adapters: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., token: _Optional[str] = ...) -> None: ...

class Activations(_message.Message):
    __slots__ = ("step", "training", "lengths", "packet", "numbers", "token", "marks", "micro_batch", "more")
    STEP_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FIELD_NUMBER: _ClassVar[int]
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    PACKET_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    MARKS_FIELD_NUMBER: _ClassVar[int]
    MICRO_BATCH_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    step: int
    training: bool
    lengths: _containers.RepeatedScalarFieldContainer[int]
    packet: Packet
    numbers: _containers.RepeatedScalarFieldContainer[int]
    token: str
    marks: bytes
    micro_batch: int
    more: bool
    def __init__(self, step: _Optional[int] = ..., training: _Optional[bool] = ..., lengths: _Optional[_Iterable[int]] = ..., packet: _Optional[_Union[Packet, _Mapping]] = ..., numbers: _Optional[_Iterable[int]] = ..., token: _Optional[str] = ..., marks: _Optional[bytes] = ..., micro_batch: _Optional[int] = ..., more: _Optional[bool] = ...) -> None: ...

class LabelledActivations(_message.Message):
    __slots__ = ("step", "training", "lengths", "labels", "packet", "token")
    STEP_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FIELD_NUMBER: _ClassVar[int]
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    PACKET_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    step: int
    training: bool
    lengths: _containers.RepeatedScalarFieldContainer[int]
    labels: _containers.RepeatedScalarFieldContainer[int]
    packet: Packet
    token: str
    def __init__(self, step: _Optional[int] = ..., training: _Optional[bool] = ..., lengths: _Optional[_Iterable[int]] = ..., labels: _Optional[_Iterable[int]] = ..., packet: _Optional[_Union[Packet, _Mapping]] = ..., token: _Optional[str] = ...) -> None: ...

class Resend(_message.Message):
    __slots__ = ("step", "token", "micro_batch")
    STEP_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    MICRO_BATCH_FIELD_NUMBER: _ClassVar[int]
    step: int
    token: str
    micro_batch: int
    def __init__(self, step: _Optional[int] = ..., token: _Optional[str] = ..., micro_batch: _Optional[int] = ...) -> None: ...

class Gradients(_message.Message):
    __slots__ = ("step", "packet", "loss", "token", "micro_batch")
    STEP_FIELD_NUMBER: _ClassVar[int]
    PACKET_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    MICRO_BATCH_FIELD_NUMBER: _ClassVar[int]
    step: int
    packet: Packet
    loss: float
    token: str
    micro_batch: int
    def __init__(self, step: _Optional[int] = ..., packet: _Optional[_Union[Packet, _Mapping]] = ..., loss: _Optional[float] = ..., token: _Optional[str] = ..., micro_batch: _Optional[int] = ...) -> None: ...

class Update(_message.Message):
    __slots__ = ("round", "edge_round", "adapters", "rows", "samples", "loss", "token")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    EDGE_ROUND_FIELD_NUMBER: _ClassVar[int]
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    round: int
    edge_round: int
    adapters: _containers.RepeatedCompositeFieldContainer[Tensor]
    rows: int
    samples: int
    loss: float
    token: str
    def __init__(self, round: _Optional[int] = ..., edge_round: _Optional[int] = ..., adapters: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., rows: _Optional[int] = ..., samples: _Optional[int] = ..., loss: _Optional[float] = ..., token: _Optional[str] = ...) -> None: ...

class Accepted(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("error", "reason")
    ERROR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    error: str
    reason: str
    def __init__(self, error: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class RoundOrder(_message.Message):
    __slots__ = ("round", "edge_rounds", "local_steps", "devices", "adapters", "watched", "fingerprints")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    EDGE_ROUNDS_FIELD_NUMBER: _ClassVar[int]
    LOCAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    WATCHED_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINTS_FIELD_NUMBER: _ClassVar[int]
    round: int
    edge_rounds: int
    local_steps: int
    devices: _containers.RepeatedScalarFieldContainer[str]
    adapters: _containers.RepeatedCompositeFieldContainer[Tensor]
    watched: int
    fingerprints: bool
    def __init__(self, round: _Optional[int] = ..., edge_rounds: _Optional[int] = ..., local_steps: _Optional[int] = ..., devices: _Optional[_Iterable[str]] = ..., adapters: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., watched: _Optional[int] = ..., fingerprints: _Optional[bool] = ...) -> None: ...

class DeviceBehaviour(_message.Message):
    __slots__ = ("device", "fingerprint", "step", "answers", "head")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    device: str
    fingerprint: bytes
    step: bytes
    answers: bytes
    head: str
    def __init__(self, device: _Optional[str] = ..., fingerprint: _Optional[bytes] = ..., step: _Optional[bytes] = ..., answers: _Optional[bytes] = ..., head: _Optional[str] = ...) -> None: ...

class Behaviours(_message.Message):
    __slots__ = ("round", "edge_round", "behaviours")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    EDGE_ROUND_FIELD_NUMBER: _ClassVar[int]
    BEHAVIOURS_FIELD_NUMBER: _ClassVar[int]
    round: int
    edge_round: int
    behaviours: _containers.RepeatedCompositeFieldContainer[DeviceBehaviour]
    def __init__(self, round: _Optional[int] = ..., edge_round: _Optional[int] = ..., behaviours: _Optional[_Iterable[_Union[DeviceBehaviour, _Mapping]]] = ...) -> None: ...

class DeviceVerdict(_message.Message):
    __slots__ = ("device", "trust")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    TRUST_FIELD_NUMBER: _ClassVar[int]
    device: str
    trust: float
    def __init__(self, device: _Optional[str] = ..., trust: _Optional[float] = ...) -> None: ...

class Verdicts(_message.Message):
    __slots__ = ("round", "edge_round", "verdicts")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    EDGE_ROUND_FIELD_NUMBER: _ClassVar[int]
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    round: int
    edge_round: int
    verdicts: _containers.RepeatedCompositeFieldContainer[DeviceVerdict]
    def __init__(self, round: _Optional[int] = ..., edge_round: _Optional[int] = ..., verdicts: _Optional[_Iterable[_Union[DeviceVerdict, _Mapping]]] = ...) -> None: ...

class DeviceReport(_message.Message):
    __slots__ = ("device", "rows", "samples", "loss", "lost")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    device: str
    rows: int
    samples: int
    loss: float
    lost: str
    def __init__(self, device: _Optional[str] = ..., rows: _Optional[int] = ..., samples: _Optional[int] = ..., loss: _Optional[float] = ..., lost: _Optional[str] = ...) -> None: ...

class HeadWeight(_message.Message):
    __slots__ = ("head", "weight")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    head: str
    weight: float
    def __init__(self, head: _Optional[str] = ..., weight: _Optional[float] = ...) -> None: ...

class EdgeUpdate(_message.Message):
    __slots__ = ("round", "adapters", "weight", "reports", "heads")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    round: int
    adapters: _containers.RepeatedCompositeFieldContainer[Tensor]
    weight: float
    reports: _containers.RepeatedCompositeFieldContainer[DeviceReport]
    heads: _containers.RepeatedCompositeFieldContainer[HeadWeight]
    def __init__(self, round: _Optional[int] = ..., adapters: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., weight: _Optional[float] = ..., reports: _Optional[_Iterable[_Union[DeviceReport, _Mapping]]] = ..., heads: _Optional[_Iterable[_Union[HeadWeight, _Mapping]]] = ...) -> None: ...

class Score(_message.Message):
    __slots__ = ("round", "items", "correct", "loss", "texts", "whole", "token")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    CORRECT_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    round: int
    items: int
    correct: int
    loss: float
    texts: int
    whole: int
    token: str
    def __init__(self, round: _Optional[int] = ..., items: _Optional[int] = ..., correct: _Optional[int] = ..., loss: _Optional[float] = ..., texts: _Optional[int] = ..., whole: _Optional[int] = ..., token: _Optional[str] = ...) -> None: ...

class EvaluationOrder(_message.Message):
    __slots__ = ("round", "devices", "adapters")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    round: int
    devices: _containers.RepeatedScalarFieldContainer[str]
    adapters: _containers.RepeatedCompositeFieldContainer[Tensor]
    def __init__(self, round: _Optional[int] = ..., devices: _Optional[_Iterable[str]] = ..., adapters: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ...) -> None: ...

class DeviceScore(_message.Message):
    __slots__ = ("device", "items", "correct", "loss", "texts", "whole")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    CORRECT_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    device: str
    items: int
    correct: int
    loss: float
    texts: int
    whole: int
    def __init__(self, device: _Optional[str] = ..., items: _Optional[int] = ..., correct: _Optional[int] = ..., loss: _Optional[float] = ..., texts: _Optional[int] = ..., whole: _Optional[int] = ...) -> None: ...

class EdgeScores(_message.Message):
    __slots__ = ("round", "scores")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    round: int
    scores: _containers.RepeatedCompositeFieldContainer[DeviceScore]
    def __init__(self, round: _Optional[int] = ..., scores: _Optional[_Iterable[_Union[DeviceScore, _Mapping]]] = ...) -> None: ...

class Term(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class Register(_message.Message):
    __slots__ = ("terms", "routes")
    TERMS_FIELD_NUMBER: _ClassVar[int]
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    terms: _containers.RepeatedCompositeFieldContainer[Term]
    routes: _containers.RepeatedCompositeFieldContainer[Route]
    def __init__(self, terms: _Optional[_Iterable[_Union[Term, _Mapping]]] = ..., routes: _Optional[_Iterable[_Union[Route, _Mapping]]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("axes",)
    AXES_FIELD_NUMBER: _ClassVar[int]
    axes: _containers.RepeatedCompositeFieldContainer[Tensor]
    def __init__(self, axes: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ...) -> None: ...

class Next(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Task(_message.Message):
    __slots__ = ("what", "round", "edge_round", "edge")
    WHAT_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    EDGE_ROUND_FIELD_NUMBER: _ClassVar[int]
    EDGE_FIELD_NUMBER: _ClassVar[int]
    what: str
    round: int
    edge_round: int
    edge: str
    def __init__(self, what: _Optional[str] = ..., round: _Optional[int] = ..., edge_round: _Optional[int] = ..., edge: _Optional[str] = ...) -> None: ...

class Ping(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Clock(_message.Message):
    __slots__ = ("microseconds",)
    MICROSECONDS_FIELD_NUMBER: _ClassVar[int]
    microseconds: int
    def __init__(self, microseconds: _Optional[int] = ...) -> None: ...

class Route(_message.Message):
    __slots__ = ("edge", "seconds", "ahead")
    EDGE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    AHEAD_FIELD_NUMBER: _ClassVar[int]
    edge: str
    seconds: float
    ahead: float
    def __init__(self, edge: _Optional[str] = ..., seconds: _Optional[float] = ..., ahead: _Optional[float] = ...) -> None: ...

class Move(_message.Message):
    __slots__ = ("device", "edge")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    EDGE_FIELD_NUMBER: _ClassVar[int]
    device: str
    edge: str
    def __init__(self, device: _Optional[str] = ..., edge: _Optional[str] = ...) -> None: ...

class RollCall(_message.Message):
    __slots__ = ("moves",)
    MOVES_FIELD_NUMBER: _ClassVar[int]
    moves: _containers.RepeatedCompositeFieldContainer[Move]
    def __init__(self, moves: _Optional[_Iterable[_Union[Move, _Mapping]]] = ...) -> None: ...

class Present(_message.Message):
    __slots__ = ("device", "silent", "routes")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    SILENT_FIELD_NUMBER: _ClassVar[int]
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    device: str
    silent: float
    routes: _containers.RepeatedCompositeFieldContainer[Route]
    def __init__(self, device: _Optional[str] = ..., silent: _Optional[float] = ..., routes: _Optional[_Iterable[_Union[Route, _Mapping]]] = ...) -> None: ...

class Presence(_message.Message):
    __slots__ = ("present",)
    PRESENT_FIELD_NUMBER: _ClassVar[int]
    present: _containers.RepeatedCompositeFieldContainer[Present]
    def __init__(self, present: _Optional[_Iterable[_Union[Present, _Mapping]]] = ...) -> None: ...
