# Every ML product of this repository, once; BUILD files loop over them, and the programs that know
# several are told by ESPALIER_PRODUCTS. `espalier.pex new` adds to it. (A tuple, as Pants needs what
# macros define to be hashable.)
PRODUCTS = (
    "churn",
)
