"""From single instances to studies: `grouping` tells what a repeat of an object is, `completeness` whether a study is complete."""
