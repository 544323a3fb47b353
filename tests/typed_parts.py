"""Not run: mypy checks here that each registered part has the type that `medcl.contract` asks for.

`tests/test_contract_types.py` keeps it complete, and shows that mypy refuses a wrong part.
"""

from __future__ import annotations

import medcl.classifiers.contrast
import medcl.classifiers.core_tuning
import medcl.classifiers.full
import medcl.classifiers.linear
import medcl.classifiers.linear_handcrafted
import medcl.classifiers.lora
import medcl.classifiers.lp_ft
import medcl.classifiers.semi_supervised
import medcl.classifiers.tip
import medcl.classifiers.unet
import medcl.methods.byol
import medcl.methods.can
import medcl.methods.clip
import medcl.methods.cpc
import medcl.methods.ctvis
import medcl.methods.data2vec
import medcl.methods.debcse
import medcl.methods.deepcluster
import medcl.methods.dino
import medcl.methods.dinov2
import medcl.methods.distil
import medcl.methods.harmonised
import medcl.methods.i_jepa
import medcl.methods.lejepa
import medcl.methods.mae
import medcl.methods.mae_unet
import medcl.methods.moco
import medcl.methods.msn
import medcl.methods.noisy_labels
import medcl.methods.participant
import medcl.methods.redundancy
import medcl.methods.semi_supervised
import medcl.methods.simclr
import medcl.methods.site_adapt
import medcl.methods.spark
import medcl.methods.supcon
import medcl.methods.swav
import medcl.methods.tip
import medcl.methods.unicon
import medcl.methods.voco
import medcl.methods.volume_fusion
import medcl_biosignals.baselines
import medcl_biosignals.beats
import medcl_biosignals.benchmarks.cinc2011
import medcl_biosignals.benchmarks.cinc2017
import medcl_biosignals.benchmarks.liu2022
import medcl_biosignals.benchmarks.mitbih
import medcl_biosignals.benchmarks.ptbxl
import medcl_biosignals.benchmarks.ucr
import medcl_biosignals.dataset
import medcl_biosignals.encoders.efficientnet
import medcl_biosignals.encoders.hong
import medcl_biosignals.encoders.inception
import medcl_biosignals.encoders.mbconv
import medcl_biosignals.encoders.released
import medcl_biosignals.encoders.resnet
import medcl_biosignals.encoders.s4d
import medcl_biosignals.encoders.selfsimilar
import medcl_biosignals.encoders.sensors
import medcl_biosignals.encoders.tcn
import medcl_biosignals.encoders.towers
import medcl_biosignals.encoders.vit
import medcl_biosignals.encoders.xresnet
import medcl_biosignals.in_memory
import medcl_biosignals.look
import medcl_biosignals.methods.aim
import medcl_biosignals.methods.alike_beats
import medcl_biosignals.methods.cross_modal
import medcl_biosignals.methods.described
import medcl_biosignals.methods.forecast
import medcl_biosignals.methods.order
import medcl_biosignals.methods.papagei
import medcl_biosignals.methods.quantised
import medcl_biosignals.methods.similar_snippets
import medcl_biosignals.prepare
import medcl_biosignals.preview
import medcl_biosignals.streaming
import medcl_biosignals.views
import medcl_ct.benchmarks.medmnist
import medcl_ct.dataset
import medcl_ct.encoders.huggingface
import medcl_ct.encoders.joint
import medcl_ct.encoders.primus
import medcl_ct.encoders.resenc
import medcl_ct.encoders.resnet
import medcl_ct.encoders.scattering
import medcl_ct.encoders.swin
import medcl_ct.encoders.vit
import medcl_ct.joint
import medcl_ct.nnunet
import medcl_ct.overlay
import medcl_ct.pictures
import medcl_ct.prepare
import medcl_ct.preview
import medcl_ct.views
import medcl_ct.write_masks
import medcl_pathology.baselines
import medcl_pathology.benchmarks.kather
import medcl_pathology.benchmarks.medmnist
import medcl_pathology.benchmarks.mil
import medcl_pathology.dataset
import medcl_pathology.encoders.huggingface
import medcl_pathology.encoders.released
import medcl_pathology.encoders.resnet
import medcl_pathology.encoders.vit
import medcl_pathology.heatmap
import medcl_pathology.look
import medcl_pathology.mil.classifier
import medcl_pathology.mil.ins
import medcl_pathology.mil.sc_mil
import medcl_pathology.mil.songci_text
import medcl_pathology.prepare
import medcl_pathology.preview
import medcl_pathology.songci
import medcl_pathology.views
from medcl import contract

_prepare: list[contract.Prepare] = [
    medcl_biosignals.prepare.prepare,
    medcl_ct.prepare.prepare,
    medcl_pathology.prepare.prepare,
]
_dataset: list[contract.Dataset] = [
    medcl_biosignals.dataset.dataset,
    medcl_ct.dataset.dataset,
    medcl_pathology.dataset.dataset,
]
_views_factory: list[contract.ViewsFactory] = [
    medcl_biosignals.views.views,
    medcl_ct.views.views,
    medcl_pathology.views.views,
]
_encoder_factory: list[contract.EncoderFactory] = [
    medcl_biosignals.encoders.resnet.resnet1d,
    medcl_biosignals.encoders.mbconv.mbconv1d,
    medcl_biosignals.encoders.efficientnet.efficientnet1d,
    medcl_biosignals.encoders.xresnet.xresnet1d,
    medcl_biosignals.encoders.selfsimilar.selfsimilar1d,
    medcl_biosignals.encoders.inception.inceptiontime,
    medcl_biosignals.encoders.tcn.tcn,
    medcl_biosignals.encoders.s4d.s4d1d,
    medcl_biosignals.encoders.vit.vit1d,
    medcl_biosignals.encoders.vit.patchtst,
    medcl_biosignals.encoders.towers.two_towers,
    medcl_biosignals.encoders.sensors.sensor_vit,
    medcl_biosignals.encoders.hong.preact_resnet1d,
    medcl_biosignals.encoders.released.papagei_s,
    medcl_biosignals.encoders.released.ecg_fm,
    medcl_biosignals.encoders.released.hubert_ecg,
    medcl_biosignals.encoders.released.ecgfounder,
    medcl_biosignals.encoders.released.ecgfounder_1lead,
    medcl_biosignals.encoders.released.ecg_cpc,
    medcl_ct.encoders.resnet.resnet2d,
    medcl_ct.encoders.resnet.resnet3d,
    medcl_ct.encoders.resenc.resenc3d,
    medcl_ct.encoders.primus.primus3d,
    medcl_ct.encoders.vit.vit2d,
    medcl_ct.encoders.vit.vit3d,
    medcl_ct.encoders.swin.swin_unetr3d,
    medcl_ct.encoders.huggingface.huggingface2d,
    medcl_ct.encoders.scattering.scattering2d,
    medcl_ct.encoders.joint.joint,
    medcl_pathology.encoders.resnet.resnet,
    medcl_pathology.encoders.vit.vit,
    medcl_pathology.encoders.huggingface.huggingface,
    medcl_pathology.encoders.released.timm,
    medcl_pathology.encoders.released.uni,
    medcl_pathology.encoders.released.conch,
    medcl_pathology.encoders.released.virchow,
    medcl_pathology.encoders.released.phikon,
    medcl_pathology.encoders.released.h_optimus_0,
    medcl_pathology.encoders.released.gigapath,
    medcl_pathology.encoders.released.uni2_h,
    medcl_pathology.encoders.released.conch_v1_5,
    medcl_pathology.encoders.released.virchow2,
    medcl_pathology.encoders.released.h_optimus_1,
    medcl_pathology.encoders.released.phikon_v2,
    medcl_pathology.encoders.released.hibou_b,
    medcl_pathology.encoders.released.hibou_l,
    medcl_pathology.encoders.released.midnight,
    medcl_pathology.encoders.released.ctranspath,
    medcl_pathology.encoders.released.kaiko_vits16,
    medcl_pathology.encoders.released.kaiko_vitb16,
    medcl_pathology.encoders.released.kaiko_vitl14,
    medcl_pathology.encoders.released.lunit_vits16,
    medcl_pathology.encoders.released.titan,
    medcl_pathology.encoders.released.prism,
    medcl_pathology.encoders.released.chief,
    medcl_pathology.encoders.released.gigapath_slide,
]
_method_factory: list[contract.MethodFactory] = [
    medcl_biosignals.methods.alike_beats.AlikeBeats,
    medcl_biosignals.methods.described.Described,
    medcl_biosignals.methods.order.OrderAware,
    medcl_biosignals.methods.quantised.Quantised,
    medcl_biosignals.methods.similar_snippets.SimilarSnippets,
    medcl_biosignals.methods.forecast.Forecast,
    medcl_biosignals.methods.cross_modal.CrossModal,
    medcl_biosignals.methods.papagei.PaPaGeiS,
    medcl_biosignals.methods.aim.AIM,
    medcl_ct.joint.Joint2D3D,
    medcl_pathology.songci.SongCi,
    medcl.methods.lejepa.LeJEPA,
    medcl.methods.lejepa.VISReg,
    medcl.methods.cpc.CPC,
    medcl.methods.dinov2.DINOv2,
    medcl.methods.distil.Distil,
    medcl.methods.i_jepa.IJEPA,
    medcl.methods.msn.MSN,
    medcl.methods.data2vec.Data2Vec,
    medcl.methods.simclr.SimCLR,
    medcl.methods.moco.MoCoV2,
    medcl.methods.moco.MoCoV3,
    medcl.methods.participant.Participant,
    medcl.methods.supcon.SupCon,
    medcl.methods.semi_supervised.SemiSupervised,
    medcl.methods.swav.SwAV,
    medcl.methods.deepcluster.DeepClusterV2,
    medcl.methods.byol.BYOL,
    medcl.methods.byol.SimSiam,
    medcl.methods.redundancy.VICReg,
    medcl.methods.redundancy.BarlowTwins,
    medcl.methods.dino.DINO,
    medcl.methods.mae.MAE,
    medcl.methods.spark.SparK,
    medcl.methods.mae_unet.UNetMAE,
    medcl.methods.volume_fusion.VolumeFusion,
    medcl.methods.voco.VoCo,
    medcl.methods.can.CAN,
    medcl.methods.clip.TwoTower,
    medcl.methods.tip.TIP,
    medcl.methods.site_adapt.SiteAdapt,
    medcl.methods.harmonised.Harmonised,
    medcl.methods.unicon.UniCon,
    medcl.methods.ctvis.CTVIS,
    medcl.methods.debcse.DebCSE,
    medcl.methods.noisy_labels.NoisyLabels,
]
_baseline: list[contract.Baseline] = [
    medcl_biosignals.baselines.handcrafted,
    medcl_biosignals.baselines.raw,
    medcl_pathology.baselines.handcrafted,
]
_benchmark: list[contract.BenchmarkSet] = [
    medcl_biosignals.benchmarks.cinc2011.cinc2011,
    medcl_biosignals.benchmarks.cinc2017.cinc2017,
    medcl_biosignals.benchmarks.liu2022.liu2022,
    medcl_biosignals.benchmarks.mitbih.mitbih,
    medcl_biosignals.benchmarks.ucr.ucr,
    medcl_biosignals.benchmarks.ptbxl.ptbxl,
    medcl_ct.benchmarks.medmnist.organamnist,
    medcl_ct.benchmarks.medmnist.organcmnist,
    medcl_ct.benchmarks.medmnist.organsmnist,
    medcl_ct.benchmarks.medmnist.chestmnist,
    medcl_ct.benchmarks.medmnist.pneumoniamnist,
    medcl_ct.benchmarks.medmnist.octmnist,
    medcl_ct.benchmarks.medmnist.breastmnist,
    medcl_ct.benchmarks.medmnist.tissuemnist,
    medcl_ct.benchmarks.medmnist.organmnist3d,
    medcl_ct.benchmarks.medmnist.nodulemnist3d,
    medcl_ct.benchmarks.medmnist.adrenalmnist3d,
    medcl_ct.benchmarks.medmnist.fracturemnist3d,
    medcl_ct.benchmarks.medmnist.vesselmnist3d,
    medcl_ct.benchmarks.medmnist.synapsemnist3d,
    medcl_pathology.benchmarks.kather.kather2016,
    medcl_pathology.benchmarks.kather.kather2018,
    medcl_pathology.benchmarks.medmnist.pathmnist,
    medcl_pathology.benchmarks.medmnist.dermamnist,
    medcl_pathology.benchmarks.medmnist.bloodmnist,
    medcl_pathology.benchmarks.medmnist.retinamnist,
    medcl_pathology.benchmarks.mil.elephant,
    medcl_pathology.benchmarks.mil.fox,
    medcl_pathology.benchmarks.mil.musk1,
    medcl_pathology.benchmarks.mil.musk2,
    medcl_pathology.benchmarks.mil.tiger,
]
_stream_factory: list[contract.StreamFactory] = [
    medcl_biosignals.streaming.stream,
]
_preview: list[contract.Preview] = [
    medcl_biosignals.preview.preview,
    medcl_ct.preview.preview,
    medcl_pathology.preview.preview,
]
_pictures: list[contract.Pictures] = [
    medcl_ct.pictures.pictures,
]
_classifier_factory: list[contract.ClassifierFactory] = [
    medcl_pathology.mil.classifier.Mil,
    medcl_pathology.mil.sc_mil.ScMil,
    medcl_pathology.mil.ins.Ins,
    medcl_pathology.mil.songci_text.SongCiText,
]
_save: list[contract.Save] = [
    medcl_biosignals.in_memory.save,
]
_look: list[contract.Look] = [
    medcl_biosignals.look.look,
    medcl_pathology.look.look,
]
_measure: list[contract.Measure] = [
    medcl_biosignals.beats.beats,
]
_overlay: list[contract.Overlay] = [
    medcl_ct.overlay.overlay,
]
_write_masks: list[contract.WriteMasks] = [
    medcl_ct.write_masks.write_masks,
]
_export: list[contract.Export] = [
    medcl_ct.nnunet.export,
]
_explain: list[contract.Explain] = [
    medcl_pathology.heatmap.explain,
]
_thumbnail: list[contract.Thumbnail] = [
    medcl_pathology.heatmap.thumbnail,
]
_encoder_classifier_factory: list[contract.EncoderClassifierFactory] = [
    medcl.classifiers.linear.Linear,
    medcl.classifiers.linear_handcrafted.LinearHandcrafted,
    medcl.classifiers.lp_ft.ProbeThenTune,
    medcl.classifiers.full.Full,
    medcl.classifiers.lora.LoRA,
    medcl.classifiers.contrast.Contrast,
    medcl.classifiers.semi_supervised.SemiSupervised,
    medcl.classifiers.unet.UNet,
    medcl.classifiers.unet.VoxelLinear,
    medcl.classifiers.core_tuning.CoreTuning,
    medcl.classifiers.tip.TIPClassifier,
]
