"""Fine-tuning: end-to-end training on labels from the run's weights, and from its random initialisation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from timm.optim import param_groups_layer_decay
from timm.scheduler import CosineLRScheduler
from torch import Tensor
from torch.nn import functional as F

from sslcli.config.ranges import Count, NotNegative, Positive, Share
from sslcli.data.base import with_label
from sslcli.data.widths import joined
from sslcli.evaluation.base import Metric, Probe
from sslcli.evaluation.classification import predicted_metrics
from sslcli.evaluation.classifier import Classifier, predict
from sslcli.evaluation.context import ProbeContext, chosen
from sslcli.evaluation.rows import counted
from sslcli.features import evaluating
from sslcli.randomness import Randomness, fold, seed_torch
from sslcli.run_dir.console import progress
from sslcli.types import View

_LEAST_LR = 2.5e-7
_NO_DECAY = ("*token*", "*pos_embed*", "*position_bias*")  # in addition to biases and norms


class Finetune(Probe):
    """Fine-tuning as in SimMIM and MAE, scaled down: AdamW with layer decay, stochastic depth, mixup, smoothed labels.

    The published recipes (SimMIM, arXiv:2111.09886, and MAE, arXiv:2111.06377, table 9, both for ViT-B) use 100 epochs
    of all labels, ``lr=1.25e-3`` (MAE 5e-4 for 256 samples), layer decay 0.65 (SimMIM 0.9 for a Swin), a warm-up of a
    fifth of the steps (MAE a twentieth), and RandAugment with random crops and erasing. These augmentations are left
    out here: views are clean, or the run's own. The weights of the last step are scored, so no choice is made on the
    held-out split.

    Args:
        epochs: passes over the labelled samples.
        max_samples: largest number of training samples and of queries, balanced over classes; null takes all.
        batch_size: samples per step; an even number, for mixup.
        lr: learning rate for 512 samples per step; it is scaled linearly with the batch.
        layer_decay: factor on the learning rate for each layer further from the head; 1 is none.
        weight_decay: weight decay of AdamW; none on biases, norms, tokens and positions.
        warmup: share of the steps in which the learning rate rises.
        drop_path: rate of stochastic depth, for encoders that have it.
        mixup: alpha of mixup, for images; 0 is none.
        cutmix: alpha of CutMix, for images; 0 is none. With both, each is used for half of the batches.
        label_smoothing: share of a label that is spread over all classes.
        clip: largest gradient norm; null does not clip.
        augment: train on the run's first random view instead of on clean views.
        control: ``supervised`` adds the baseline of that name: the same training from random initialisation on all
            labels, whatever ``max_samples`` is.
    """

    def __init__(
        self,
        *,
        epochs: Count = 10,
        max_samples: Count | None = 5000,
        batch_size: Count = 128,
        lr: NotNegative = 1e-2,
        layer_decay: Positive = 0.65,
        weight_decay: NotNegative = 0.05,
        warmup: Share = 0.2,
        drop_path: Share = 0.1,
        mixup: NotNegative = 0.8,
        cutmix: NotNegative = 1.0,
        label_smoothing: Share = 0.1,
        clip: Positive | None = 5.0,
        augment: bool = False,
        control: Literal["none", "supervised"] = "none",
    ) -> None:
        if epochs < 1 or (max_samples is not None and max_samples < 2) or batch_size < 2 or batch_size % 2:
            raise ValueError("epochs must be at least 1, max_samples at least 2, batch_size an even number")
        if lr <= 0 or not 0 < layer_decay <= 1 or weight_decay < 0 or (clip is not None and clip <= 0):
            raise ValueError("lr and clip must be positive, layer_decay above 0 and at most 1, weight_decay 0 or more")
        for name, value in {"warmup": warmup, "drop_path": drop_path, "label_smoothing": label_smoothing}.items():
            if not 0 <= value < 1:
                raise ValueError(f"{name}={value} must be a share, 0 or more and below 1")
        if mixup < 0 or cutmix < 0:
            raise ValueError("mixup and cutmix must not be negative")
        self.epochs, self.max_samples, self.batch_size = epochs, max_samples, batch_size
        self.lr, self.layer_decay, self.weight_decay = lr * batch_size / 512, layer_decay, weight_decay
        self.warmup, self.drop_path, self.clip, self.augment = warmup, drop_path, clip, augment
        self.control = control
        self.mixup, self.cutmix, self.label_smoothing = mixup, cutmix, label_smoothing

    def __call__(self, context: ProbeContext) -> dict[str, Metric]:
        labelled = context.labelled()
        if labelled is None:
            return {}
        if labelled[0].dim() == 2:
            context.leave_out("finetune: it reads one label a sample, and these data have several")
            return {}
        labels, truth = labelled
        train, queries = (chosen(part, self.max_samples) for part in labelled)
        if len(train) < 2:
            context.leave_out("finetune: one train label is too few, it needs 2")
            return {}
        num_classes = int(torch.cat([labels[train], truth[queries]]).max()) + 1
        predicted = {}
        with _own_randomness():
            for name in context.encoders:
                classifier = self._trained(name, context, train, labels, num_classes)
                predicted[name] = _classes(classifier, context, queries)
            if self.control == "supervised":
                everything = with_label(labels)
                classifier = self._trained("random_init", context, everything, labels, int(labels.max()) + 1)
                predicted["supervised"] = _classes(classifier, context, queries)
        protocol = f"{self._recipe(context, len(train))}; queries {len(queries):,} held out"
        if self.control == "supervised":
            protocol += f"; supervised: the same from random initialisation on all {len(everything):,} train labels"
        return predicted_metrics(context, "finetune_top1", predicted, truth[queries], protocol, headline=True)

    def _recipe(self, context: ProbeContext, count: int) -> str:
        """Describe the training on ``count`` samples, without options that do not apply to these data or encoders."""
        facts = [
            f"fine-tuned end to end for {self.epochs} epochs on {count:,} train labels",
            f"{'the first random' if self.augment else 'clean'} views",
            f"batch {self._size(count)}",
            f"learning rate {self.lr:.3g}",
            f"layer decay {self.layer_decay:g}",
            f"weight decay {self.weight_decay:g}",
        ]
        if context.drops_paths:
            facts.append(f"drop path {self.drop_path:g}")
        if _reads_images(context):
            facts += [f"mixup {self.mixup:g}", f"cutmix {self.cutmix:g}"]
        clip = "no clipping" if self.clip is None else f"gradients clipped to {self.clip:g}"
        return ", ".join([*facts, f"label smoothing {self.label_smoothing:g}", clip])

    def _size(self, count: int) -> int:
        """Return the number of samples per step, which is even, for mixup."""
        return min(self.batch_size, count // 2 * 2)

    def _trained(self, name: str, context: ProbeContext, train: Tensor, labels: Tensor, num_classes: int) -> Classifier:
        """Train the encoder of that name on the samples at ``train``; ``labels`` are those of the whole split."""
        device, compute = context.compute.device, context.compute
        torch.manual_seed(fold(context.seed, "finetune head") % 2**63)  # the same for the baselines
        classifier = Classifier(context.copied(name, self.drop_path), num_classes)
        classifier.to(device).train()
        size = self._size(len(train))
        steps = self.epochs * (len(train) // size)
        groups = param_groups_layer_decay(
            classifier, self.weight_decay, no_weight_decay_list=_NO_DECAY, layer_decay=self.layer_decay
        )
        optimizer = torch.optim.AdamW(groups, self.lr)
        schedule = CosineLRScheduler(
            optimizer, steps, lr_min=_LEAST_LR, warmup_t=round(self.warmup * steps), warmup_lr_init=_LEAST_LR,
            t_in_epochs=False,
        )  # fmt: skip
        scaler = torch.amp.GradScaler(device.type, enabled=compute.dtype == torch.float16)
        mix = self._mixing(num_classes, images=_reads_images(context))
        batches = _batches(train, size, self.epochs, context.seed)
        bar = progress(f"finetune {name}", steps, "steps")
        for step, index in enumerate(batches):
            schedule.step_update(step)
            seed = fold(context.seed, "finetune step", step)
            seed_torch(seed, device)  # of dropout and stochastic depth
            np.random.seed(seed % 2**32)  # noqa: NPY002  mixup draws from NumPy's own generator
            view = self._view(context, index, seed)
            x, target = mix(view.x, labels[index].to(device))
            with compute.autocast():
                scores = classifier(View(x, view.field, view.valid))
            loss = SoftTargetCrossEntropy()(scores.float(), target)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            if self.clip is not None:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(classifier.parameters(), self.clip)
            scaler.step(optimizer)
            scaler.update()
            bar.update()
        bar.close()
        return classifier

    def _view(self, context: ProbeContext, index: Tensor, seed: int) -> View:
        """Return a view of the samples at ``index``, on the device."""
        columns = joined(list(context.pieces(context.dataset, index)), context.dataset.spec)
        with torch.no_grad(), context.compute.autocast():
            if self.augment:
                return context.views(columns, Randomness(seed, 0, np.arange(len(index)), context.compute.device))[0]
            return context.views.evaluation_view(columns)

    def _mixing(self, num_classes: int, *, images: bool) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return a function from (inputs, labels) to (inputs, targets (B, C)); it mixes images and smooths labels."""
        mixup = Mixup(self.mixup, self.cutmix, label_smoothing=self.label_smoothing, num_classes=num_classes)

        def mix(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            if images and (self.mixup or self.cutmix):
                mixed: tuple[Tensor, Tensor] = mixup(x, labels)
                return mixed
            one_hot = F.one_hot(labels, num_classes).float()
            return x, one_hot * (1 - self.label_smoothing) + self.label_smoothing / num_classes

        return mix


def _reads_images(context: ProbeContext) -> bool:
    return context.dataset.spec[context.views.field].kind == "image"


def _classes(classifier: Classifier, context: ProbeContext, queries: Tensor) -> Tensor:
    """Return the class (Q,) that is predicted for each query."""
    held_out = context.queried
    with evaluating(classifier):
        guesses = []
        for columns in counted(context.pieces(held_out, queries), "classifying queries", len(queries)):
            with context.compute.autocast():
                guesses.append(predict(classifier, context.views.evaluation_view(columns)))
    return torch.cat(guesses)


def _batches(train: Tensor, size: int, epochs: int, seed: int) -> Iterator[Tensor]:
    """Yield the full batches of each epoch, shuffled anew in every epoch."""
    for epoch in range(epochs):
        generator = torch.Generator().manual_seed(fold(seed, "finetune order", epoch) % 2**63)
        order = train[torch.randperm(len(train), generator=generator)]
        yield from order[: len(order) // size * size].split(size)


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Restore the generators of torch and NumPy at the end, as timm's mixup and stochastic depth use them."""
    state = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002
