"""Export to nnU-Net 2: the folder of a trained model (``plans.json``, ``fold_0`` …).

nnU-Net's ResEnc U-Net is the network that ``resenc3d`` and the classifier ``unet`` make; names
differ. The display window that the encoder begins with becomes the plans' intensity properties, so
that nnU-Net's CT normalisation is the same function. Written from nnU-Net's public code (2.8).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medcl import manifest
from medcl.classifiers.unet import UNet
from medcl.dense.opened import DenseStudy
from medcl.errors import UsageError
from medcl.io.atomic import new_folder
from medcl.labels.outputs import Outputs
from medcl.nn.unet import UNetDecoder
from medcl.run import Run, Trained, load_samples
from medcl_ct.encoders.resenc import CTResEnc

CONFIGURATION = "3d_fullres"
_UNTRAINED = ("background", "foreground")
_LR, _DECAY, _MOMENTUM = 1e-2, 3e-5, 0.99  # nnUNetTrainer's


def export(trained: Trained, out: Path) -> Path:
    """Write the networks of a study of masks, or a run's encoder with an untrained decoder.

    Args:
        trained: a `DenseStudy` with the encoder ``resenc3d`` and the classifier ``unet``, or a
            `Run` with that encoder, for nnU-Net's ``-pretrained_weights``.
        out: the folder to create.

    Raises:
        UsageError: for another network, a spacing that varies, or an existing folder.
    """
    if out.exists():
        raise UsageError(f"{out} exists: choose another --out, or remove it.")
    spacing = [float(step) for step in trained.recipe.prepare["spacing"]]
    if min(spacing) <= 0:
        raise UsageError(
            f"prepare.spacing is {spacing}: nnU-Net has one spacing for all volumes, and 0 keeps "
            "each volume's own. Train with fixed spacings."
        )
    networks, classes, patch = _networks(trained)
    plans = _plans(trained, networks[0], spacing, patch)
    dataset = {
        "channel_names": {"0": "CT"},
        "labels": {name: number for number, name in enumerate(classes)},
        "numTraining": 0,
        "file_ending": ".nii.gz",
    }
    with new_folder(out, durable=False) as folder:
        (folder / "plans.json").write_text(json.dumps(plans, indent=2), encoding="utf-8")
        (folder / "dataset.json").write_text(json.dumps(dataset, indent=2), encoding="utf-8")
        for number, network in enumerate(networks):
            (folder / f"fold_{number}").mkdir()
            path = folder / f"fold_{number}" / "checkpoint_final.pth"
            torch.save(_checkpoint(network, plans, dataset, number), path)
        (folder / "README.md").write_text(_readme(trained, len(networks)), encoding="utf-8")
        manifest.seal(folder, "nnunet", {"recipe": trained.recipe.name})
    return out


def _networks(trained: Trained) -> tuple[list[UNet], tuple[str, ...], tuple[int, ...]]:
    """The networks, their classes, and the size of a patch."""
    if isinstance(trained, DenseStudy):
        models = [trained.model(path) for path in trained.networks]
        found, classes, patch = models, trained.classes, trained.patch
    elif isinstance(trained, Run):
        x = torch.from_numpy(load_samples(trained.recipe, trained.data).read(np.arange(1))["x"])
        outputs = Outputs("multiclass", _UNTRAINED)
        found, classes = [UNet(trained.encoder(), {"x": x}, outputs)], _UNTRAINED
        patch = tuple(int(n) for n in x.shape[2:])
    else:
        raise UsageError("nnU-Net takes a run, or a study of masks: medcl finetune -r ct/segment.")
    networks = [
        model
        for model in found
        if isinstance(model, UNet)
        and isinstance(model.encoder, CTResEnc)
        and isinstance(model.decoder, UNetDecoder)
    ]
    if len(networks) != len(found):
        name = trained.recipe.part("encoder").name
        raise UsageError(
            f"nnU-Net has no network of the encoder '{name}' that medcl could fill: train with "
            "encoder.name resenc3d (and classifier.name unet)."
        )
    return networks, classes, patch


def renamed(network: UNet) -> dict[str, Tensor]:
    """The weights by the names of nnU-Net's ``ResidualEncoderUNet``.

    It registers each layer twice, and the encoder once more within the decoder. The scores of
    coarser resolutions, which only its training uses, are those of deep supervision; without it,
    and at the coarsest, new.
    """
    encoder: dict[str, Tensor] = {}
    weights: dict[str, Tensor] = {}
    for name, value in network.state_dict().items():
        name = re.sub(r"^encoder\.stem\.", "encoder.stem.convs.0.", name)
        name = re.sub(r"^encoder\.levels\.(\d+)\.(\d+)\.", r"encoder.stages.\1.blocks.\2.", name)
        name = name.replace(".first.", ".conv1.").replace(".second.", ".conv2.")
        name = re.sub(r"^decoder\.ups\.", "decoder.transpconvs.", name)
        name = re.sub(r"^decoder\.blocks\.(\d+)\.", r"decoder.stages.\1.convs.0.", name)
        name = name.replace(".adn.N.", ".norm.")
        target = encoder if name.startswith("encoder.") else weights
        for spelled in _twice(name):
            target[spelled] = value
    decoder = network.decoder
    assert isinstance(decoder, UNetDecoder)
    weights = {
        k: v for k, v in weights.items() if not k.startswith(("decoder.head", "decoder.coarse"))
    }
    heads = [decoder.head, *decoder.coarse]  # fine to coarse; nnU-Net counts from the coarsest
    ups = [up for up in decoder.ups if isinstance(up, nn.ConvTranspose3d)]
    new = [nn.Conv3d(up.out_channels, decoder.head.out_channels, 1) for up in ups]
    layers = [*new[: len(ups) - len(heads)], *reversed(heads)]
    for number, layer in enumerate(layers):
        for part, value in layer.state_dict().items():
            weights[f"decoder.seg_layers.{number}.{part}"] = value.detach()
    return {**encoder, **{f"decoder.{name}": value for name, value in encoder.items()}, **weights}


def _twice(name: str) -> Sequence[str]:
    """Both names of a layer in nnU-Net: ``conv``, ``norm`` and its place in ``all_modules``."""
    if match := re.fullmatch(r"(.*)\.(conv|norm)\.(weight|bias)", name):
        place = {"conv": 0, "norm": 1}[match[2]]
        return name, f"{match[1]}.all_modules.{place}.{match[3]}"
    return (name,)


def _checkpoint(
    network: UNet, plans: Mapping[str, Any], dataset: Mapping[str, Any], fold: int
) -> dict[str, Any]:
    """What ``nnUNetTrainer.load_checkpoint`` reads, before the first epoch."""
    weights = renamed(network)
    trained = {id(value): value for value in weights.values()}
    optimizer = torch.optim.SGD(
        [nn.Parameter(torch.zeros(1)) for _ in trained],
        lr=_LR,
        momentum=_MOMENTUM,
        nesterov=True,
        weight_decay=_DECAY,
    )
    logs = ("mean_fg_dice", "ema_fg_dice", "dice_per_class_or_region", "train_losses", "val_losses")
    return {
        "network_weights": {name: value.detach().clone() for name, value in weights.items()},
        "optimizer_state": optimizer.state_dict(),
        "grad_scaler_state": None,
        "logging": {
            name: [] for name in (*logs, "lrs", "epoch_start_timestamps", "epoch_end_timestamps")
        },
        "_best_ema": None,
        "current_epoch": 0,
        "init_args": {
            "plans": dict(plans),
            "configuration": CONFIGURATION,
            "fold": fold,
            "dataset_json": dict(dataset),
        },
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": None,  # networks here saw no mirrored patches
    }


def _plans(
    trained: Trained, network: UNet, spacing: Sequence[float], patch: Sequence[int]
) -> dict[str, Any]:
    encoder = network.encoder
    assert isinstance(encoder, CTResEnc)
    stages = len(encoder.stage_widths)
    window = encoder.window
    middle, half = (window.low + window.high) / 2, (window.high - window.low) / 2
    mean, deviation = (0.0, half) if window.scale == "water" else (window.low, 2 * half)
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    scores = {**resampling, "order": 1}
    function = "resample_data_or_seg_to_shape"
    return {
        "dataset_name": "Dataset000_medcl",
        "plans_name": "nnUNetResEncUNetMedclPlans",
        "original_median_spacing_after_transp": list(spacing),
        "original_median_shape_after_transp": list(patch),
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "medcl",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {
                "min": window.low,
                "percentile_00_5": window.low,
                "median": middle,
                "mean": mean,
                "std": deviation,
                "percentile_99_5": window.high,
                "max": window.high,
            }
        },
        "configurations": {
            CONFIGURATION: {
                "data_identifier": "nnUNetPlans_3d_fullres",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": max(2, trained.recipe.finetune.batch_size),
                "patch_size": [int(n) for n in patch],
                "median_image_size_in_voxels": [int(n) for n in patch],
                "spacing": list(spacing),
                "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [False],
                "resampling_fn_data": function,
                "resampling_fn_seg": function,
                "resampling_fn_probabilities": function,
                "resampling_fn_data_kwargs": resampling,
                "resampling_fn_seg_kwargs": {**scores, "is_seg": True},
                "resampling_fn_probabilities_kwargs": scores,
                "batch_dice": False,
                "architecture": {
                    "network_class_name": (
                        "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
                    ),
                    "arch_kwargs": {
                        "n_stages": stages,
                        "features_per_stage": list(encoder.stage_widths),
                        "conv_op": "torch.nn.modules.conv.Conv3d",
                        "kernel_sizes": [[3, 3, 3]] * stages,
                        "strides": [[1, 1, 1], *[[2, 2, 2]] * (stages - 1)],
                        "n_blocks_per_stage": [len(level) for level in encoder.levels],  # type: ignore[arg-type]
                        "n_conv_per_stage_decoder": [1] * (stages - 1),
                        "conv_bias": True,
                        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                        "dropout_op": None,
                        "dropout_op_kwargs": None,
                        "nonlin": "torch.nn.LeakyReLU",
                        "nonlin_kwargs": {"inplace": True},
                    },
                    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
                },
            }
        },
    }


def _readme(trained: Trained, count: int) -> str:
    what = (
        f"{count} networks trained with masks, a fold each"
        if isinstance(trained, DenseStudy)
        else "A pretrained encoder; the decoder and the scores are **untrained**"
    )
    return f"""# {trained.recipe.name}, for nnU-Net 2

{what}. The folder is that of a trained model of nnU-Net:

    nnUNetv2_predict_from_modelfolder -i IMAGES -o MASKS -m THIS_FOLDER -f 0
    nnUNetv2_train DATASET 3d_fullres FOLD -p PLANS -pretrained_weights fold_0/checkpoint_final.pth

To train, the plans must have the architecture, the patch size and the intensity properties of
`plans.json`. Two things differ from medcl: nnU-Net reads volumes as their files have them, while
medcl turns them so that indices rise towards head, back and left (write images in that orientation
first: `LPS`); and it resamples with cubic splines where medcl interpolates linearly.

Research only, **not for diagnosis**: validate it on the patients it is meant for.
"""
