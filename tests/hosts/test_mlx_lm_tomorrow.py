"""A release that nobody has measured yet."""

import json

from mlx_gemma4_patches.patch import State
from tests.hosts.tomorrow import TestTomorrow as _Tomorrow
from tests.hosts.tomorrow import by_id


class TestTomorrow(_Tomorrow):
    host = "mlx_lm"

    def test_what_cannot_be_proved_stays_off_and_says_why(self, folder, python):
        theirs = self.change(folder, "raise RuntimeError('rewritten')")
        done = self.prove(python, folder, "--json")
        assert done.returncode == 1, done.stderr
        found = json.loads(done.stdout)
        assert found["proved"] == {}
        assert set(found["left_off"]) == theirs
        for reason in found["left_off"].values():
            assert "rewritten" in reason
        states = by_id(self.status(folder, python=python)[0])
        assert {states[name] for name in theirs} == {State.FINGERPRINT_MISMATCH.value}
