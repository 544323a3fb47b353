"""Published methods by name: one file each, one line here."""

METHODS: dict[str, str] = {
    "simclr": "medcl.methods.simclr:SimCLR",
    "moco-v2": "medcl.methods.moco:MoCoV2",
    "moco-v3": "medcl.methods.moco:MoCoV3",
    "participant": "medcl.methods.participant:Participant",
    "supcon": "medcl.methods.supcon:SupCon",
    "semi-supervised": "medcl.methods.semi_supervised:SemiSupervised",
    "swav": "medcl.methods.swav:SwAV",
    "deepcluster-v2": "medcl.methods.deepcluster:DeepClusterV2",
    "byol": "medcl.methods.byol:BYOL",
    "simsiam": "medcl.methods.byol:SimSiam",
    "vicreg": "medcl.methods.redundancy:VICReg",
    "barlow-twins": "medcl.methods.redundancy:BarlowTwins",
    "dino": "medcl.methods.dino:DINO",
    "mae": "medcl.methods.mae:MAE",
    "spark": "medcl.methods.spark:SparK",
    "can": "medcl.methods.can:CAN",
    "clip": "medcl.methods.clip:TwoTower",
    "tip": "medcl.methods.tip:TIP",
    "site-adapt": "medcl.methods.site_adapt:SiteAdapt",
    "harmonised": "medcl.methods.harmonised:Harmonised",
}
