"""The error of an audio file that cannot be scored."""

from common.errors import UserError


class AudioError(UserError):
    """An audio file has no usable samples; `condition` names the reason.

    One of "missing", "unreadable", "no_audio_stream", "empty", "not_finite", "too_long", "no_such_channel".
    """

    def __init__(self, condition: str, what: str, expected: object = None, found: object = None):
        super().__init__(what, expected, found)
        self.condition = condition

    def __reduce__(self):  # worker processes send it
        return AudioError, (self.condition, str(self))
