"""A target-stage step as the paper's text describes it, one thing after the other: what the project's step is compared with.

Three encoder passes over randomly drawn sentences, each padded for itself; every span's concatenated vector is built; the
prototypes move span by span (eq. 6); each batch searches a flat index by itself (eq. 9); overlapping pseudo entities are resolved
sentence by sentence. It takes the project's model (with its weights) and its batches' tensors, so both do the same work.
"""

from collections.abc import Sequence

import faiss
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from modeling_glode import GlodeModel, collate_windows, span_grid
from trainer_glode import GlodeTrainer


class SequentialStep:
    """One step after the other.

    Args:
        trainer: the project's, in its target stage; its pseudo labels are copied, its datastore's vectors are searched.
        model: takes the steps.
    """

    mlm_probability, mlm_weight, beta, decay = 0.25, 1e-3, 0.9, 0.99

    def __init__(self, trainer: GlodeTrainer, model: GlodeModel):
        self.model, self.tokenizer, self.device = model, trainer.processing_class, model.device
        self.length, self.number_of_types = model.config.max_span_length, model.config.num_labels
        labels, store = trainer.denoiser.pseudo_labels, trainer.denoiser.datastore
        self.soft = [part.clone() for part in labels.probabilities.split(labels.offsets.diff().tolist())]
        self.prototypes = F.normalize(torch.randn(self.number_of_types, model.config.projection_size, device=self.device), dim=-1)
        self.thresholds = torch.full((2, self.number_of_types), 0.5, device=self.device)
        self.types, self.neighbors = store.types, store.neighbors
        self.index = faiss.IndexFlatIP(model.config.projection_size)
        self.index.add(np.ascontiguousarray(store.vectors.numpy(force=True)))

    def loss(self, source: Sequence[dict], target: Sequence[dict]) -> Tensor:
        """L_src + L_tgt + w L_mlm of some source and as many target windows."""
        gold = [self._gold(row) for row in source]
        logits, projection, grid = self._spans(source)
        for row, labels in enumerate(gold):
            self._move_prototypes(projection[row][grid[row]], labels[grid[row][: len(labels)]])
        labels = torch.cat([labels[grid[row][: len(labels)]] for row, labels in enumerate(gold)])
        loss = F.cross_entropy(logits[grid], labels)

        logits, projection, grid = self._spans(target)
        refined = []
        for row, window in enumerate(target):
            soft, valid = self.soft[window["window"]], grid[row][: len(window["first_token"])]
            vectors = projection[row][grid[row]]
            self._move_prototypes(vectors, soft[valid].argmax(-1))
            soft[valid] = self._refined(soft[valid], vectors)
            refined.append(self._without_overlaps(soft, valid)[valid])
        loss = loss - (torch.cat(refined) * logits[grid].log_softmax(-1)).sum(-1).mean()
        return loss + self.mlm_weight * self._mlm_loss(target)

    def _gold(self, row: dict) -> Tensor:
        labels = torch.zeros(len(row["first_token"]), self.length, dtype=torch.long, device=self.device)
        for begin, length, label in zip(row["begins"], row["lengths"], row["types"], strict=True):
            labels[begin, length - 1] = label
        return labels

    def _collate(self, rows: Sequence[dict]) -> dict[str, Tensor]:
        return {name: part.to(self.device) for name, part in collate_windows(rows, self.tokenizer.pad_token_id).items()}

    def _spans(self, rows: Sequence[dict]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [rows, words, length, types] and unit vectors [rows, words, length, D], concatenated first, and the grid."""
        model, batch = self.model, self._collate(rows)
        hidden = model.encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        hidden = model.dropout(F.layer_norm(hidden, hidden.shape[-1:]))
        each = torch.arange(len(rows), device=self.device)[:, None]
        first, last = hidden[each, batch["first_token"]], hidden[each, batch["last_token"]]
        words, shapes = first.shape[1], model.shape_embedding(batch["word_shapes"])
        columns = []
        for length in range(1, self.length + 1):
            reach = min(length, words)
            end = F.pad(last[:, reach - 1 :], (0, 0, 0, reach - 1))
            shape = sum(F.pad(shapes[:, k:], (0, 0, 0, k)) for k in range(reach))
            width = model.length_embedding.weight[length - 1].expand(len(rows), words, -1)
            columns.append(torch.cat([first, end, width, shape], dim=-1))
        vectors = torch.stack(columns, dim=2)
        with torch.no_grad():
            projection = F.normalize(model.projector.linear(vectors), dim=-1)
        grid = span_grid(batch["number_of_words"], batch["own_start"], batch["own_end"], words, self.length)
        return model.classifier.linear(vectors), projection, grid

    def _move_prototypes(self, vectors: Tensor, types: Tensor) -> None:
        for vector, label in zip(vectors, types.tolist(), strict=True):
            self.prototypes[label] = F.normalize(self.decay * self.prototypes[label] + (1 - self.decay) * vector, dim=0)

    def _refined(self, soft: Tensor, vectors: Tensor) -> Tensor:
        found = torch.from_numpy(self.index.search(vectors.float().numpy(force=True), self.neighbors)[1])
        near = self.types[found.to(self.types.device)]
        local = F.one_hot(near, self.number_of_types).float().mean(1)
        directions = torch.zeros_like(soft)
        for similarity, threshold in zip((vectors @ self.prototypes.T, local), self.thresholds, strict=True):
            chosen = similarity > threshold
            chosen[:, 0] |= similarity.argmax(-1) == 0
            directions += F.normalize(chosen.float(), p=1, dim=-1)
        mixed = F.normalize(self.beta * soft + (1 - self.beta) * F.normalize(directions, p=1, dim=-1), p=1, dim=-1)
        return torch.where(directions.sum(-1, keepdim=True) > 0, mixed, soft)

    def _without_overlaps(self, soft: Tensor, valid: Tensor) -> Tensor:
        score, label = soft.max(-1)
        taken = torch.zeros(len(soft), dtype=torch.bool, device=self.device)
        soft = soft.clone()
        for begin, length in sorted((valid & (label > 0)).nonzero().tolist(), key=lambda at: -score[at[0], at[1]]):
            if taken[begin : begin + length + 1].any():
                soft[begin, length] = F.one_hot(torch.tensor(0, device=self.device), self.number_of_types)
            else:
                taken[begin : begin + length + 1] = True
        return soft

    def _mlm_loss(self, rows: Sequence[dict]) -> Tensor:
        model, batch = self.model, self._collate(rows)
        ids = batch["input_ids"]
        special = torch.isin(ids, torch.tensor(self.tokenizer.all_special_ids, device=self.device))
        chosen = ~special & (torch.rand(ids.shape, device=self.device) < self.mlm_probability)
        inputs = ids.masked_fill(chosen, self.tokenizer.mask_token_id)
        hidden = model.encoder(input_ids=inputs, attention_mask=batch["attention_mask"]).last_hidden_state
        scores = model.mlm_head(hidden[chosen], model.get_input_embeddings().weight.detach())
        return F.cross_entropy(scores, ids[chosen])
