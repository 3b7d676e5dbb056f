"""What a run in fp16 does when its scaler overflows, on any device."""

import torch


def assert_overflows_and_goes_on(trainer):
    """Train 60 steps in fp16 from a scale that is far too large: while it is, no weight and no queue moves."""
    modules = {"encoder": trainer.encoder, "objective": trainer.objective}

    def moving():
        parts = {f"{part}.{name}": p for part, module in modules.items() for name, p in module.named_parameters()}
        parts |= {name: b for name, b in trainer.objective.named_buffers() if name.startswith("queue")}
        return {
            name: value.detach().clone() for name, value in parts.items() if not name.startswith("objective.teacher")
        }

    trainer.scaler.load_state_dict({**trainer.scaler.state_dict(), "scale": 2.0**40})
    batches, scale, before, skipped = trainer.loader.batches(0), 2.0**40, moving(), 0
    for _ in range(60):
        trainer.train_step(next(batches))
        after = moving()
        if trainer.scaler.get_scale() < scale:
            scale, skipped = trainer.scaler.get_scale(), skipped + 1
            assert scale == 2.0 ** (40 - skipped)
            assert all(torch.equal(after[name], value) for name, value in before.items())
        else:
            assert any(not torch.equal(after[name], value) for name, value in before.items())
        before = after
    assert 1 < skipped < 50
    assert all(value.isfinite().all() for value in before.values())
    assert trainer.values["loss"].isfinite()
    trainer.guard.check_weights(trainer.modules, trainer.step)
