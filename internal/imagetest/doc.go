// Package imagetest builds the image from the Dockerfile and looks at what came
// out, as somebody does who is to run it on a cluster that trusts nobody: which
// files, whose user, which size, which architecture; and it runs the main job
// out of it on a read-only root.
//
// No registry of images is needed: the base images are made from what this
// machine has. What only a registry's bases could break is not seen here; that
// is little, since the image itself starts from scratch.
//
// It holds tests only.
package imagetest
